"""What char_lm refuses, it refuses at once, with a remedy, and leaves nothing behind; what ends it
is saved."""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time
import unittest

import runs
from runs import CHAR_LM


def limited(which, size):
    return {"preexec_fn": lambda: resource.setrlimit(which, (size, size))}


class Memory(runs.CharLmTest):
    @unittest.skipIf(runs.SANITIZED, "the sanitizer needs more")
    def test_each_command_has_a_remedy(self):
        self.text = self.file("text.txt", runs.small_text(20000))
        new = ["train", "--run", "new", "--text", self.text, "--batch", 16, "--seq-len", 40]
        self.refuse(1, *new, "--hidden", 1500, "--threads", 1, **limited(resource.RLIMIT_AS, 300 << 20),
                    says=["not enough memory", "--hidden", "--seq-len or --threads"])
        self.text = self.file("short.txt", runs.small_text(100))
        run = self.train("big", "--hidden", 1500, "--layers", 1, "--epochs", 1, "--optimizer", "sgd",
                         "--train-frac", 1)
        for words in (["sample"], ["info"], ["eval", "--text", self.text], ["gradcheck", "--fast"],
                      ["train", "--resume", "--epochs", 2, "--threads", 1]):
            for size in (50,) if words == ["info"] else (50, 64, 75):
                with self.subTest(words, size=size):
                    message = self.refuse(1, *words, "--run", run, says="not enough memory",
                                          **limited(resource.RLIMIT_AS, size << 20))
                    self.assertRegex(message, "big/model.safetensors: .*; free some, .*ulimit -v")
        message = self.refuse(1, "report", run, says="not enough memory",
                              **limited(resource.RLIMIT_AS, 50 << 20))
        self.assertRegex(message, "big/model.safetensors: .*; free some, .*ulimit -v")

    def test_models_are_refused_before_they_are_built(self):
        memory = {} if runs.SANITIZED else limited(resource.RLIMIT_AS, 200 << 20)
        for words, says in ((["--hidden", 3000], "coordinates"),
                            (["--layers", 10000, "--hidden", 1], "coordinates"),
                            (["--vocabulary", 1000000], "coordinates"),
                            (["--batch", 1000000, "--seq-len", 1000000], "coordinates")):
            self.refuse(1, "gradcheck", *words, says=says, timeout=20, **memory)
        self.refuse(2, "train", "--run", "new", "--layers", 10001, says="--layers is")

    @unittest.skipIf(runs.SANITIZED, "the sanitizer needs more")
    def test_a_pipe_without_end(self):
        with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as source:
            self.refuse(1, "train", "--run", "new", "--bytes", "--text", "/dev/stdin",
                        stdin=source.stdout, says="too long", **limited(resource.RLIMIT_AS, 1300 << 20))
            source.kill()


class NothingBehind(runs.CharLmTest):
    def test_failures_before_the_first_step(self):
        words = ["train", "--text", self.text, *self.small, "--hidden", 64]
        self.refuse(1, *words, "--run", "some/new/run", says="File too large",
                    **limited(resource.RLIMIT_FSIZE, 8192))
        (self.folder / "run").mkdir()
        (self.folder / "run" / "model.safetensors").symlink_to("no/where")
        self.refuse(1, *words, "--run", "run", says="No such file")
        self.assertTrue((self.folder / "run" / "model.safetensors").is_symlink())
        self.refuse(1, *words, "--run", "some/new/run", "--lr", "1e38", "--optimizer", "sgd",
                    "--model", "rnn", "--clip", 0, says=["training stopped", "nothing was saved"])

    def test_only_its_own_files(self):
        (self.folder / "run").mkdir()
        self.file("run/notes", "mine")
        (self.folder / "run" / "metrics.jsonl").symlink_to("../lines")
        self.refuse(1, "train", "--text", self.text, *self.small, "--hidden", 64, "--run", "run",
                    says="File too large", **limited(resource.RLIMIT_FSIZE, 8192))

    def test_a_working_directory_that_was_removed(self):
        gone = self.folder / "gone"
        gone.mkdir()
        for words in (["--run", "run", "--text", self.text, *self.small],
                      ["--run", self.folder / "run", "--text", "a"]):
            script = 'rmdir "$PWD" && exec "$@"'
            done = subprocess.run(["sh", "-c", script, "sh", *self.command("train", *words)], cwd=gone,
                                  capture_output=True)
            gone.mkdir()
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rb"\Achar_lm: [^\n]*: No such file or directory\n\Z")


class NoRun(runs.CharLmTest):
    def test_what_is_there_instead(self):
        for path in (self.text, "/dev/null"):
            self.refuse(1, "info", "--run", path, says=[f"{path}: not a directory"])
        config = self.folder / "run" / "config.json"
        config.parent.mkdir()
        config.symlink_to("nothing")
        self.refuse(1, "info", "--run", "run", says="config.json: cannot read: No such file")
        config.unlink()
        config.symlink_to("config.json")
        for words in (["info"], ["train", "--resume"], ["train", "--text", self.text]):
            self.refuse(1, *words, "--run", "run", says="config.json: cannot read: Too many levels")

    def test_a_directory_that_may_not_be_read(self):
        run = self.train("run", "--epochs", 1)
        program = shutil.copy(CHAR_LM, self.folder / "char_lm")
        self.folder.chmod(0o755)
        run.chmod(0)
        self.addCleanup(run.chmod, 0o755)
        as_user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        for words in (["info"], ["sample"], ["train", "--resume"]):
            done = subprocess.run([program, *words, "--run", str(run)], capture_output=True, cwd="/",
                                  **as_user)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rb"\Achar_lm: [^\n]*config.json: cannot read: "
                                          rb"Permission denied\n\Z")


class Signals(runs.CharLmTest):
    def begin(self, preexec=runs.default_signals):
        """Starts an endless training, and waits until it has begun to."""
        run = self.folder / "run"
        process = subprocess.Popen(
            self.command("train", "--text", self.text, "--run", run, *self.small, "--epochs", 99999,
                         "--threads", 1),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=preexec)
        self.addCleanup(process.kill)
        while process.poll() is None and not (run / "metrics.jsonl").exists():
            time.sleep(0.01)
        return run, process

    def test_each_saves(self):
        for which in (signal.SIGHUP, signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
            run, process = self.begin()
            process.send_signal(which)
            report, error = process.communicate(timeout=60)
            self.assertEqual((process.returncode, error), (128 + which, b""))
            self.assertIn(b"and saved", report)
            shutil.rmtree(run)

    def test_ignored_ones_stay_ignored(self):
        def ignore():
            runs.default_signals()
            for which in (signal.SIGHUP, signal.SIGINT):
                signal.signal(which, signal.SIG_IGN)
        _, process = self.begin(ignore)
        for which in (signal.SIGHUP, signal.SIGINT):
            process.send_signal(which)
        time.sleep(0.5)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143)

    def test_a_config_that_was_removed_is_written_again(self):
        run, process = self.begin()
        process.send_signal(signal.SIGSTOP)
        config = (run / "config.json").read_bytes()
        (run / "config.json").unlink()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
        self.assertEqual((run / "config.json").read_bytes(), config)
        self.succeed("train", "--resume", "--run", run, "--epochs", 1)

    def test_a_run_that_was_removed(self):
        run, process = self.begin()
        process.send_signal(signal.SIGSTOP)
        while run.exists():  # a save that had begun may be adding a file
            shutil.rmtree(run, ignore_errors=True)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, error = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(error, rb"\Achar_lm: [^\n]*the directory was deleted[^\n]*\n\Z")


class Resuming(runs.CharLmTest):
    def test_a_text_that_is_not_found(self):
        odd = self.folder / os.fsdecode(b"od\xffd.txt")
        self.text = self.text.rename(odd)
        run = self.train("run", "--epochs", 1)
        self.refuse(1, "train", "--resume", "--run", run, "--epochs", 2,
                    says=["No such file", "--text", "UTF-8"])
        self.succeed("train", "--resume", "--run", run, "--epochs", 2, "--text", odd)

    def test_fewer_epochs_than_were_trained(self):
        run = self.train("run")
        before = runs.hash_of(run)
        report = self.succeed("train", "--resume", "--run", run, "--epochs", 1)
        self.assertIn(b"nothing left to do after 2 epochs", report)
        self.assertEqual(runs.hash_of(run), before)

    def test_times_of_foreign_metrics(self):
        run = self.train("run", "--epochs", 1)
        for line in ('{"elapsed_s":1e308}', '{"elapsed_s":-99999}', '{"elapsed_s":1e11}'):
            metrics = run / "metrics.jsonl"
            lines = metrics.read_text().splitlines()
            metrics.write_text("\n".join([*lines[:-1], line]) + "\n")
            epochs = len(lines) + 1
            self.succeed("train", "--resume", "--run", run, "--epochs", epochs)
            self.assertLess(abs(runs.metrics_of(run)[-1]["elapsed_s"] - 60), 60)

    def test_leftovers_are_told_from_other_files(self):
        run = self.train("run", "--epochs", 1)
        for name in (".config.json.backup.tmp", ".model.safetensors.mine.tmp"):
            (run / name).write_text("mine")
        (run / ".config.json.12-3.tmp").write_text("half")
        self.succeed("train", "--resume", "--run", run, "--epochs", 2)
        self.assertEqual(sorted(path.name for path in run.glob(".*")),
                         [".config.json.backup.tmp", ".model.safetensors.mine.tmp"])


class Messages(runs.CharLmTest):
    def test_flags_and_values(self):
        for words, says in ((["train", "--resume=5"], "--resume takes no value"),
                            (["train", "--bytes=maybe"], "--bytes takes no value"),
                            (["train", "--text="], "--text is empty"),
                            (["gradcheck", "--fast="], "--fast takes no value"),
                            (["train", "--lr=1e300"], "below 1e300")):
            self.refuse(2, *words, "--run", "new", says=[says, "--help"])
        run = self.train("run", "--epochs", 1)
        words = ["sample", "--run", run, "--length", 20]
        self.assertEqual(self.succeed(*words, "--prime="), self.succeed(*words))
        self.refuse(1, *words, "--prime", "the \udcff", says="UTF-8 at byte 4\n")

    def test_the_config(self):
        config = self.train("run", "--epochs", 1) / "config.json"
        good = config.read_text()
        long = json.loads(good)
        long["text"]["path"] = "/x" * 50000
        config.write_text(json.dumps(long))
        message = self.refuse(1, "train", "--resume", "--run", "run", says=["File name too long", "--text"])
        self.assertLess(len(message), 600)
        self.assertLess(len(self.succeed("info", "--run", "run")), 3000)
        long["text"]["path"] = str(self.text) + "\0x"
        config.write_text(json.dumps(long))
        self.refuse(1, "info", "--run", "run", says='"path" holds a NUL')
        lines = good.splitlines(keepends=True)
        config.write_text("".join([*lines[:2], lines[2].replace(": ", " "), *lines[3:]]))
        self.refuse(1, "info", "--run", "run", says=["not valid JSON", "(line 3, column 12)"])

    def test_counts(self):
        self.file("one.txt", "x")
        self.refuse(1, "train", "--run", "new", "--text", "one.txt", says="short: 1 character,")
        self.refuse(1, "train", "--run", "new", "--text", "one.txt", "--bytes", says="short: 1 byte,")
        message = self.refuse(1, "info", "--run", "x" * 100000, says="File name too long")
        self.assertLess(len(message), 600)


if __name__ == "__main__":
    unittest.main()
