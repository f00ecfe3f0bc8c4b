"""Shared by the tests of the programs of examples/: each is run as a user would, with --fast."""
import pathlib
import re
import subprocess
import tempfile
import unittest

from runs import BUILD, ROOT, SANITIZED

DATA = ROOT.parent / "shared" / "data"


def run(program, *words, folder=None):
    return subprocess.run([BUILD / "examples" / program, *map(str, words)], capture_output=True,
                          text=True, timeout=300, cwd=folder)


def results(output):
    """The numbers that a program ends with: what they are, and their values."""
    return {what: float(value)
            for what, value in re.findall(r"^result: (.+) = (\S+) \(.+\)$", output, re.MULTILINE)}


def without_times(output):
    return re.sub(r" +[0-9.]+ s$|[0-9.]+ µs", "", output, flags=re.MULTILINE)


def data_file(name):
    """A file of the data that are not part of this repository."""
    path = DATA / name
    if not path.exists():
        raise unittest.SkipTest(f"{path} is not here")
    return path


class ProgramTest(unittest.TestCase):
    """What every program has to do; `program` is its name."""
    program = None

    def setUp(self):
        if SANITIZED:
            self.skipTest("the programs are not built with sanitizers")

    def succeed(self, *words, folder=None):
        done = run(self.program, *words, folder=folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def assert_fails(self, words, message, code=1):
        """With one line on standard error and that exit code, before any work."""
        done = run(self.program, *words)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (code, "", f"{self.program}: {message}\n"))

    def assert_help(self, *required):
        """`required` are options without which it does not run."""
        text = self.succeed("--help")
        self.assertIn(f"Usage: {self.program} [OPTIONS]", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assert_fails([*required, "--nope"],
                          "The following argument was not expected: --nope; see --help", 2)

    def assert_resumes(self, *words, first=1, all_epochs=2):
        """Stopped after some epochs it goes on to the result of a training that was not, and with
        other settings it refuses to."""
        straight = without_times(self.succeed(*words, "--epochs", all_epochs))
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            save = pathlib.Path(folder, "training.safetensors")
            self.succeed(*words, "--epochs", first, "--save", save)
            resumed = self.succeed(*words, "--epochs", all_epochs, "--save", save)
            self.assertIn(f"{save}: goes on after epoch {first} of {all_epochs}\n", resumed)
            lines = without_times(resumed).splitlines()
            begin = next(i for i, line in enumerate(lines) if re.match(r"epoch +\d+  loss", line))
            self.assertEqual(lines[begin:], straight.splitlines()[-len(lines[begin:]):])
            other = run(self.program, *words, "--seed", 99, "--save", save)
            self.assertEqual(other.returncode, 1)
            self.assertIn(f"{save} is of a training with the settings", other.stderr)
