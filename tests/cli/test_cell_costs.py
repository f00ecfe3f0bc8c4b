"""What gates cost beside a vanilla RNN."""
import unittest

from programs import ProgramTest, results


class CellCosts(ProgramTest):
    program = "cell_costs"

    def test_weights_are_those_of_the_gates_and_time_grows_with_them(self):
        found = results(self.succeed("--fast"))
        for cell, gates in (("GRU", 3), ("LSTM", 4), ("minGRU", 1)):
            self.assertAlmostEqual(found[f"weights of {cell}, times those of the RNN"], gates,
                                   delta=0.05)
            self.assertGreater(found[f"time of {cell}, times that of the RNN"], 0.8)

    def test_use(self):
        self.assert_help()
        self.assert_fails(["--hidden", 0], "--hidden: '0' is not a whole number from 1 on; see --help",
                          2)


if __name__ == "__main__":
    unittest.main()
