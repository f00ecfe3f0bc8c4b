"""The example about gradients through time: its tables, and the chart."""
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from programs import run
from runs import SANITIZED

NETWORKS = ["RNN", "GRU", "LSTM, bias 0", "LSTM, bias 1", "LSTM, bias 3"]


def tables(output):
    """Of each table the rows, as lists of words."""
    found = []
    for line in output.splitlines():
        if line.startswith(("at the start", "after training")):
            found.append({})
        elif found and line:
            found[-1][line[:16].strip()] = line[16:].split()
    return found


class GradientFlow(unittest.TestCase):
    def succeed(self, *words, folder=None):
        done = run("gradient_flow", *words, folder=folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_new_networks(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            rows, = tables(self.succeed("--chart", "flow.svg", folder=folder))
            chart = xml.etree.ElementTree.parse(pathlib.Path(folder, "flow.svg")).getroot()
        norms = {back: [float(x) for x in rows[f"t = T - {back}" if back else "t = T"]]
                 for back in (0, 10, 50, 100, 199)}
        rnn, gru, short, lstm, remembering = zip(*norms.values())
        for curve in (rnn, gru, short, lstm, remembering):
            self.assertTrue(0.1 < curve[0] < 1, curve)
        # The further back, the smaller, and of the vanilla RNN by orders of magnitude.
        for curve in (rnn, gru, short, lstm):
            self.assertEqual(list(curve), sorted(curve, reverse=True))
        self.assertTrue(1e-6 < rnn[1] < 1e-2 and 1e-18 < rnn[2] < 1e-11, rnn)
        self.assertTrue(1e-60 < rnn[4] < 1e-45, rnn)
        self.assertTrue(1e-45 < short[4] < 1e-30 and 1e-45 < gru[4] < 1e-30, (short, gru))
        self.assertTrue(1e-17 < lstm[4] < 1e-10, lstm)
        self.assertGreater(min(remembering), 1e-3)
        tau = [float(x) for x in rows["median tau"][1::2]]
        self.assertEqual(rows["median tau"][0], "-")
        self.assertEqual(tau[1:], sorted(tau[1:]))
        self.assertTrue(1 < tau[0] < 3 and 2 < tau[2] < 5 and 15 < tau[3] < 30, tau)
        texts = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")]
        for name in [*NETWORKS, "1e-40", "|dL/dh_t|, logarithmic"]:
            self.assertIn(name, texts)

    def test_gradients_too_small_for_a_number(self):
        rows, = tables(self.succeed("--length", 1000, "--units", 8, "--rows", 2))
        self.assertEqual(rows["t = T - 999"][0], "0")
        self.assertGreater(float(rows["t = T - 999"][4]), 0)

    def test_training_opens_the_way(self):
        if SANITIZED:
            self.skipTest("too slow with sanitizers")
        words = ["--train", 100, "--train-length", 15, "--length", 51, "--units", 32]
        new, trained = tables(self.succeed(*words, "--learning-rate", 0.01))
        for network in (1, 3):  # GRU, LSTM with bias 1
            self.assertLess(float(trained["squared error"][network]), 0.1)
            self.assertGreater(float(trained["t = T - 50"][network]),
                               30 * float(new["t = T - 50"][network]))

    def test_help_and_errors(self):
        self.assertIn("Usage: gradient_flow [OPTIONS]", self.succeed("--help"))
        for words, code, message in (
                (["--x"], 2, "The following argument was not expected: --x; see --help"),
                (["--length", 1], 2, "--length: '1' is not a whole number from 2 on; see --help"),
                (["--chart", "/nowhere/x.svg"], 1,
                 "/nowhere/x.svg: cannot write: No such file or directory")):
            done = run("gradient_flow", *words)
            self.assertEqual((done.returncode, done.stdout, done.stderr),
                             (code, "", f"gradient_flow: {message}\n"))


if __name__ == "__main__":
    unittest.main()
