"""The example about gradients through time: its table, and the chart."""
import pathlib
import re
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

from runs import BUILD


def run(*words, folder=None):
    return subprocess.run([BUILD / "examples" / "gradient_flow", *words], capture_output=True,
                          text=True, timeout=300, cwd=folder)


class GradientFlow(unittest.TestCase):
    def test_table_and_chart(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            done = run(folder=folder)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            chart = xml.etree.ElementTree.parse(pathlib.Path(folder, "gradient_flow.svg")).getroot()
        rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
        norms = {back: [float(x) for x in rows[f"t = T - {back}" if back else "t = T"]]
                 for back in (0, 10, 50, 100, 199)}
        rnn, gru, lstm, remembering = zip(*norms.values())
        for curve in (rnn, gru, lstm, remembering):
            self.assertTrue(0.1 < curve[0] < 1, curve)
        # The further back, the smaller, and of the vanilla RNN by orders of magnitude.
        for curve in (rnn, gru, lstm):
            self.assertEqual(list(curve), sorted(curve, reverse=True))
        self.assertTrue(1e-6 < rnn[1] < 1e-2 and 1e-18 < rnn[2] < 1e-11, rnn)
        self.assertTrue(1e-60 < rnn[4] < 1e-45, rnn)
        for some, more in ((rnn, gru), (gru, lstm), (lstm, remembering)):
            for back in (2, 3, 4):
                self.assertGreater(more[back], 20 * some[back])
        self.assertGreater(lstm[4], 1e-17)
        self.assertGreater(min(remembering), 1e-3)
        tau = [float(x) for x in rows["median tau"][1::2]]
        self.assertEqual(rows["median tau"][0], "-")
        self.assertTrue(1 < tau[0] < 3 and 2 < tau[1] < 5 and 100 < tau[2] < 200, tau)
        lines = [path for path in chart.iter("{http://www.w3.org/2000/svg}path")
                 if path.get("class") == "line"]
        self.assertEqual([len(re.findall("[ML]", path.get("d"))) for path in lines], 4 * [200])

    def test_help_and_errors(self):
        self.assertIn("usage: gradient_flow [FILE]", run("--help").stdout)
        for words, message in ((["--x"], "give one FILE; see --help"),
                               (["a", "b"], "give one FILE; see --help"),
                               (["/nowhere/x.svg"],
                                "/nowhere/x.svg: the chart cannot be written there")):
            done = run(*words)
            self.assertEqual((done.returncode, done.stderr), (1, f"gradient_flow: {message}\n"))


if __name__ == "__main__":
    unittest.main()
