"""Strings that become others, with attention and beam search."""
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from programs import ProgramTest, results

RECT = "{http://www.w3.org/2000/svg}rect"


class Seq2seq(ProgramTest):
    program = "seq2seq"

    def test_dates_are_written_and_attention_is_drawn(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            chart = pathlib.Path(folder, "map.svg")
            output = self.succeed("--fast", "--epochs", 4, "--map", chart)
            right, = results(output).values()
            self.assertGreater(right, 95)
            svg = xml.etree.ElementTree.parse(chart).getroot()
            cells = [rect for rect in svg.iter(RECT) if len(rect)]  # those with a title
            self.assertEqual(len(cells) % 11, 0)  # ten characters of a date and the end
            self.assertGreaterEqual(len(cells), 11 * 8)

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 5, "--task", "reverse", "--attention", "dot")


if __name__ == "__main__":
    unittest.main()
