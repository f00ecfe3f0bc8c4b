"""The example with cells of its own: their gradients are right, they learn, and they are fast."""
import re
import subprocess
import unittest

from runs import BUILD


class WriteACell(unittest.TestCase):
    def test_gradients_training_and_speed(self):
        run = subprocess.run([BUILD / "examples" / "write_a_cell"], capture_output=True, text=True,
                             timeout=300)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        for cell in ("peephole LSTM", "minimal gated unit"):
            self.assertIn(f"{cell}: gradients agree with differences", run.stdout)
            error = re.search(rf"{cell}: mean squared error (\S+),", run.stdout)
            self.assertLess(float(error[1]), 0.1)
        # The rate itself is in docs/performance.md; under sanitizers or beside other work it says
        # little.
        self.assertRegex(run.stdout, r"peephole LSTM \d+\.\d+, minimal gated unit \d+\.\d+")

    def test_help_and_errors(self):
        run = subprocess.run([BUILD / "examples" / "write_a_cell", "--help"], capture_output=True,
                             text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Usage: write_a_cell [OPTIONS]", run.stdout)
        run = subprocess.run([BUILD / "examples" / "write_a_cell", "--x"], capture_output=True,
                             text=True)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertEqual(run.stderr, "write_a_cell: The following argument was not expected: --x; "
                                     "see --help\n")


if __name__ == "__main__":
    unittest.main()
