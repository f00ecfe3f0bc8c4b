"""A generative adversarial network of sequences, with a gradient penalty."""
import unittest

from programs import ProgramTest, results, run


class Gan(ProgramTest):
    program = "gan"

    def test_what_is_generated_comes_nearer(self):
        output = self.succeed("--fast")
        self.assertIn("the gradients of the penalty agree with differences\n", output)
        (what, distance), = results(output).items()
        self.assertEqual(what, "distance of the second moments of real and generated sequences")
        self.assertLess(distance, 0.45)

    def test_if_it_does_not_it_says_so(self):
        done = run("gan", "--fast", "--epochs", 1, "--steps", 1)
        self.assertEqual((done.returncode, done.stderr),
                         (1, "gan: that is not a factor of 2 below the start\n"))

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 5, "--factor", 0)
        self.assert_fails(["--length", 4], "--length: '4' is not a whole number from 8 on; see --help",
                          2)


if __name__ == "__main__":
    unittest.main()
