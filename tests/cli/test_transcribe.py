"""Symbols of a signal, by connectionist temporal classification."""
import unittest

from programs import ProgramTest, results


class Transcribe(ProgramTest):
    program = "transcribe"

    def test_symbols_are_found_without_being_told_where(self):
        for what, errors in results(self.succeed("--fast")).items():
            self.assertLess(errors, 2, what)

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 5, "--cell", "gru")


if __name__ == "__main__":
    unittest.main()
