"""Classes of strings and of images."""
import pathlib
import random
import struct
import tempfile
import unittest

from programs import ProgramTest, results

FILES = ("images", "labels", "test-images", "test-labels")


def write_digits(folder):
    """Images of 6 x 6 points with a bar at the place of their class, in the format of MNIST."""
    draw = random.Random(1)
    for prefix, count in (("", 300), ("test-", 60)):
        labels = bytes(draw.randrange(3) for _ in range(count))
        images = b"".join(bytes(200 if column // 2 == label else draw.randrange(50)
                                for _ in range(6) for column in range(6)) for label in labels)
        for name, header, content in (("labels", (0x801, count), labels),
                                      ("images", (0x803, count, 6, 6), images)):
            pathlib.Path(folder, prefix + name).write_bytes(
                struct.pack(f">{len(header)}I", *header) + content)


class Classify(ProgramTest):
    program = "classify"

    def accuracies(self, *words):
        """Of tests of the same length, 4 times and 16 times as long."""
        return list(results(self.succeed("--fast", *words)).values())

    def test_parity_is_tracked_in_longer_strings_too(self):
        for cell in ("gru", "lstm"):
            same, longer, long = self.accuracies("--cell", cell)
            self.assertEqual(same, 100, cell)
            self.assertGreater(longer, 95, cell)
            self.assertGreater(long, 90, cell)

    def test_a_gate_that_does_not_see_the_state_cannot_track_it(self):
        self.assertLess(self.accuracies("--cell", "min_gru")[0], 65)

    def test_permutations(self):
        self.assertGreater(self.accuracies("--task", "permutations", "--length", 6)[0], 90)

    def test_a_mean_finds_the_majority(self):
        same, longer, _ = self.accuracies("--task", "majority", "--pool", "mean")
        self.assertGreater(same, 95)
        self.assertGreater(longer, 85)

    def test_images(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            write_digits(folder)
            files = [word for name in FILES for word in ("--" + name, pathlib.Path(folder, name))]
            for pool in ("last", "mean"):
                (right,) = self.accuracies("--task", "digits", "--pool", pool, *files)
                self.assertGreater(right, 95)
            files[3] = files[7]
            self.assert_fails(["--task", "digits", *files],
                              f"{files[1]} has 300 images, but {files[3]} has 60 labels")

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 10, "--loss", "last", "--layers", 2)
        message = ("--images, --labels, --test-images and --test-labels belong to --task digits, "
                   "all four")
        self.assert_fails(["--task", "digits", "--images", "x"], message)
        self.assert_fails(["--labels", "x"], message)
        self.assert_fails(["--task", "xor"], "--task: 'xor' is none of parity, majority, "
                          "permutations, digits; see --help", 2)


if __name__ == "__main__":
    unittest.main()
