"""The instruction sets that the kernels are compiled for: the choice, and the bits of each."""
import functools
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from runs import BUILD, SANITIZED


def run(program, *words, **environment):
    return subprocess.run([BUILD / program, *words], capture_output=True, text=True, timeout=600,
                          env={**os.environ, **environment})


@functools.cache
def available():
    """The levels that this processor and this build have, from the message that names them."""
    refused = run("tests/digest", REEL_CPU="none")
    return re.search(r"it may be (.+)$", refused.stderr.strip())[1].split(", ")


class Levels(unittest.TestCase):
    @unittest.skipIf(SANITIZED, "about bits, and slow")
    def test_every_op_layer_and_optimizer_gives_the_same_bits_with_avx2_and_avx512(self):
        levels = [level for level in available() if level != "baseline"]
        runs = [run("tests/digest")] + [run("tests/digest", REEL_CPU=level) for level in levels]
        runs.append(run("tests/digest", "1"))
        for done in runs:
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.splitlines(), runs[0].stdout.splitlines())
        self.assertGreater(int(re.search(r"^(\d+) large samples$", runs[0].stdout, re.M)[1]), 400)

    def test_the_baseline_runs(self):
        if "baseline" not in available():
            self.skipTest("built for this processor alone")
        done = run("tests/digest", REEL_CPU="baseline")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_an_unknown_level_is_refused_before_any_work(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            training = ("train", "--run", pathlib.Path(folder, "run"))
            for program, words in (("tests/digest", ()), ("examples/char_lm", training)):
                with self.subTest(program):
                    done = run(program, *words, REEL_CPU="avx9")
                    self.assertEqual(done.returncode, 1)
                    self.assertRegex(done.stderr, r'\A[^\n]*REEL_CPU is "avx9", which is no set of '
                                                  r"instructions; it may be [^\n]+\n\Z")
                    self.assertEqual(list(pathlib.Path(folder).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
