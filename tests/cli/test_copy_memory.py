"""Copying memory."""
import unittest

from programs import ProgramTest, results


class CopyMemory(ProgramTest):
    program = "copy_memory"

    def share(self, *words):
        (share,) = results(self.succeed("--fast", *words)).values()
        return share

    def test_gated_networks_copy(self):
        for cell in ("gru", "lstm"):
            self.assertLess(self.share("--cell", cell), 0.3, cell)

    def test_without_memory_it_is_guessed(self):
        """A network that has seen no more than a few steps has learned when to be blank."""
        share = self.share("--cell", "rnn", "--blanks", 60, "--epochs", 3)
        self.assertGreater(share, 0.9)
        self.assertLess(share, 1.3)

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 20, "--cell", "lstm")
        self.assert_fails(["--symbols", 1],
                          "--symbols: '1' is not a whole number from 2 on; see --help", 2)
        self.assert_fails(["--save", "/nowhere/x"],
                          "/nowhere/x: cannot write: No such file or directory")


if __name__ == "__main__":
    unittest.main()
