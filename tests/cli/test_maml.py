"""Meta-learning with a gradient through steps of gradient descent."""
import re
import unittest

from programs import ProgramTest, results, run


class Maml(ProgramTest):
    program = "maml"

    def test_a_few_steps_fit_new_tasks(self):
        output = self.succeed("--fast")
        self.assertIn("the gradient through steps of gradient descent agrees with differences\n",
                      output)
        (what, error), = results(output).items()
        self.assertEqual(what, "squared error on new tasks after 3 steps")
        self.assertLess(error, 0.5)
        joint = re.search(r"\((\S+) after joint training", output)
        self.assertGreater(float(joint[1]), 1.5)

    def test_without_meta_learning_it_says_so(self):
        done = run("maml", "--fast", "--epochs", 1, "--steps", 1)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "maml: that is not a factor of 3 below joint training\n"))

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 5, "--factor", 0)
        self.assert_fails(["--inner", 0], "--inner: '0' is not a whole number from 1 on; see --help",
                          2)


if __name__ == "__main__":
    unittest.main()
