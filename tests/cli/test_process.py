"""The lifetime of a process: before main, at exit, and in forked children."""
import os
import subprocess
import unittest

from runs import BUILD, SANITIZED


def process(what, **environment):
    return subprocess.run([BUILD / "tests" / "process", what], capture_output=True, text=True,
                          timeout=120, env={**os.environ, **environment})


# In a child the leak checker would report what the parent's other threads hold.
NO_LEAKS = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


class Process(unittest.TestCase):
    def test_global_objects_use_ops_and_layers_before_main(self):
        run = process("before_main")
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(run.stdout.splitlines()[:2],
                         ["f32 [2] [2, 2] f32 [3] [3, 3, 3]", "31 parameters, a gradient [16, 3]"])

    def test_tensors_and_models_may_be_destroyed_after_main(self):
        run = process("at_exit")
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(run.stdout, "last 2\n")
        self.assertEqual(run.stderr, "")

    def test_exit_within_a_task_ends_the_program(self):
        self.assertEqual(process("exit_in_task").returncode, 3)

    def test_forked_children_compute_and_exit(self):
        run = process("fork", **NO_LEAKS)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    # Before LLVM 18 a child inherits locks of the allocator that other threads held.
    @unittest.skipIf(SANITIZED, "the sanitizer's own allocator does not survive such a fork")
    def test_fork_while_another_thread_computes(self):
        run = process("fork_while_busy", **NO_LEAKS)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)

    def test_dropout_that_drops_nothing_on_a_tape_is_noted_once(self):
        for what, rate in (("dropout_note", "0.25"), ("stack_note", "0.5")):
            with self.subTest(what):
                run = process(what)
                self.assertEqual(run.returncode, 0)
                self.assertRegex(run.stderr, rf"\Areel: Dropout of rate {rate} runs in nn::Eval "
                                             r"while a tape records, and drops nothing; [^\n]*"
                                             r"nn::Train\{rng\} \([^\n]*main\.cpp:\d+[^\n]*\)\. "
                                             r"This note is printed once\.\n\Z")

    def test_dropout_is_not_noted_where_it_drops_or_nothing_is_recorded(self):
        run = process("no_dropout_note")
        self.assertEqual((run.returncode, run.stderr), (0, ""))

    def test_two_ops_of_one_name_at_namespace_scope_end_the_program_with_a_message(self):
        run = subprocess.run([BUILD / "tests" / "duplicate_op"], capture_output=True, text=True,
                             timeout=60)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("same_name: there is an op of this name already, defined at", run.stderr)
        self.assertIn("duplicate_op.cpp:", run.stderr)


if __name__ == "__main__":
    unittest.main()
