"""The adding problem."""
import unittest

from programs import ProgramTest, results


class Adding(ProgramTest):
    program = "adding"

    def test_gated_networks_learn_it_and_others_less(self):
        errors = {cell: list(results(self.succeed("--fast", "--cell", cell)).values())[0]
                  for cell in ("gru", "lstm")}
        for cell, error in errors.items():
            self.assertLess(error, 0.01, cell)
        long = results(self.succeed("--fast", "--cell", "rnn", "--length", 100, "--epochs", 1))
        self.assertGreater(list(long.values())[0], 0.1)

    def test_the_forget_bias_is_that_of_an_lstm(self):
        def error(cell, bias):
            return results(self.succeed("--fast", "--epochs", 1, "--steps", 5, "--cell", cell,
                                        "--forget-bias", bias))
        self.assertNotEqual(error("lstm", 0), error("lstm", 3))
        self.assertEqual(error("lstm", 1), results(self.succeed("--fast", "--epochs", 1, "--steps", 5,
                                                                "--cell", "lstm")))
        self.assertEqual(error("gru", 0), error("gru", 3))

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 20, "--cell", "lstm")
        self.assert_fails(["--length", 1], "--length: '1' is not a whole number from 2 on; see --help",
                          2)
        self.assert_fails(["--save", "/nowhere/x"],
                          "/nowhere/x: cannot write: No such file or directory")


if __name__ == "__main__":
    unittest.main()
