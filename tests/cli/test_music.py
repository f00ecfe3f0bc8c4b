"""Predicting chorales."""
import json
import pathlib
import tempfile
import unittest

from programs import ProgramTest, data_file, results


class Music(ProgramTest):
    program = "music"

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="reel-cli-")
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "songs.json")
        # Scales, of different lengths.
        songs = [[[60 + (i + step) % 12, 72] for step in range(20 + i)] for i in range(12)]
        self.path.write_text(json.dumps({"train": songs[:8], "valid": songs[8:10],
                                         "test": songs[10:]}))

    def loss(self, *words):
        (loss,) = results(self.succeed(*words)).values()
        return loss

    def test_chorales_are_predicted_better_than_by_the_frequencies_of_keys(self):
        """Those alone give 11.1 nats."""
        loss = self.loss("--fast", "--data", data_file("jsb-chorales-quarter.json"))
        self.assertGreater(loss, 9)
        self.assertLess(loss, 10.7)

    def test_every_cell_learns_scales(self):
        """The frequencies of keys would give 3.4 nats."""
        for layers, *cells in ((1, "rnn", "gru", "lstm", "V", "CIFG", "NIG", "NFG", "NOG", "NIAF",
                                "NOAF", "FGR"), (2, "gru")):
            for cell in cells:
                loss = self.loss("--fast", "--epochs", 40, "--batch", 1, "--decay", 1, "--cell", cell,
                                 "--layers", layers, "--learning-rate", 1e-2, "--data", self.path)
                self.assertLess(loss, 2.8, (layers, cell))

    def test_cells_have_the_weights_that_are_asked_for(self):
        units = {}
        for cell in ("rnn", "lstm", "CIFG"):
            output = self.succeed("--data", self.path, "--weights", 30000, "--cell", cell,
                                  "--epochs", 1)
            units[cell], weights = (int(word) for word in output.split()[0:3:2])
            self.assertLessEqual(weights, 30000)
            self.assertGreater(weights, 28500)
        self.assertLess(units["lstm"], units["CIFG"])
        self.assertLess(units["CIFG"], units["rnn"])

    def test_use(self):
        self.assert_help("--data", "x")
        self.assert_resumes("--fast", "--data", self.path, first=2, all_epochs=4)
        self.assert_fails([], "--data is required; see --help", 2)
        self.assert_fails(["--data", "/nowhere"], "/nowhere: cannot read: No such file or directory")
        self.assert_fails(["--data", self.path, "--weights", 10],
                          "--weights: '10' is not a whole number from 1000 on; see --help", 2)


if __name__ == "__main__":
    unittest.main()
