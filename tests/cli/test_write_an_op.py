"""The example that adds ops to a program: its own checks pass and its model learns."""
import re
import subprocess
import unittest

from runs import BUILD


class WriteAnOp(unittest.TestCase):
    def test_its_checks_pass_and_its_model_learns(self):
        run = subprocess.run([BUILD / "examples" / "write_an_op"], capture_output=True, text=True,
                             timeout=300)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("log_cosh: 0 complaints", run.stdout)
        self.assertIn("scan: 0 complaints", run.stdout)
        losses = [float(loss) for loss in re.findall(r"loss (\S+)", run.stdout)]
        self.assertEqual(len(losses), 4)
        self.assertLess(losses[-1], losses[0] / 10)


if __name__ == "__main__":
    unittest.main()
