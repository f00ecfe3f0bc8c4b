"""Forecasts of series with intervals."""
import math
import pathlib
import random
import re
import tempfile
import unittest
import xml.etree.ElementTree

from programs import ProgramTest, results, run


def figures(output):
    """The errors of network, autoregression and persistence, and the share in the interval."""
    error, share = results(output).values()
    beside = re.search(r"\((\S+) of a linear autoregression, (\S+) if nothing changes\)", output)
    return error, float(beside[1]), float(beside[2]), share


class Series(ProgramTest):
    program = "series"

    def write(self, text):
        folder = tempfile.TemporaryDirectory(prefix="reel-cli-")
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name, "table.csv")
        path.write_text(text)
        return path

    def test_better_than_a_linear_model_with_honest_intervals(self):
        for forecast in ("direct", "iterated"):
            error, linear, same, share = figures(
                self.succeed("--fast", "--data", "chaotic", "--forecast", forecast))
            self.assertLess(error, 0.8 * linear, forecast)
            self.assertLess(linear, same, forecast)
            self.assertTrue(0.74 < share < 0.86, (forecast, share))

    def test_a_table_and_a_chart(self):
        draw = random.Random(1)
        rows = [f"{i},{math.sin(i / 5) + 0.1 * draw.gauss(0, 1):.4f}" for i in range(600)]
        path = self.write("\n".join(["time,level"] + rows) + "\n")
        chart = path.with_name("chart.svg")
        words = ["--fast", "--csv", path, "--window", 16, "--horizon", 4, "--chart", chart]
        output = self.succeed(*words, "--column", "level")
        error, _, same, _ = figures(output)
        self.assertLess(error, 0.6 * same)
        self.assertIn(f"on {path}, direct", output)
        texts = [text.text for text in xml.etree.ElementTree.parse(chart).getroot().iter()]
        for name in ("seen", "what followed", "interval: from", "interval: to", "median"):
            self.assertIn(name, texts)
        self.assert_fails(words, f"{path} has the columns time, level: give one of them as --column",
                          1)

    def test_a_series_that_is_too_short(self):
        path = self.write("x\n" + "1\n2\n" * 100)
        done = run("series", "--csv", path)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^series: a part of the series, the steps 140 to 169 of 200, "
                                      r"has fewer than 20 windows of 64 steps .*smaller ones\n$")

    def test_use(self):
        self.assert_help()
        self.assertIn("--column NAME ", self.succeed("--help"))
        for forecast in ("direct", "iterated"):
            self.assert_resumes("--fast", "--steps", 5, "--forecast", forecast)
        self.assert_fails(["--interval", 2], "--interval: '2' is not a number from 0.01 to 0.99; "
                          "see --help", 2)
        self.assert_fails(["--csv", "/nowhere.csv"],
                          "/nowhere.csv: cannot read: No such file or directory")
        self.assert_fails(["--chart", "/nowhere/x"],
                          "/nowhere/x: cannot write: No such file or directory")


if __name__ == "__main__":
    unittest.main()
