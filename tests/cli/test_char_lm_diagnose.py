"""char_lm train --diagnose: what the metrics tell of the layers, and that training is the same."""
import runs
from runs import METRIC_KEYS, metrics_of

TIMES = ("chars_per_s", "elapsed_s")


def without(line, *keys):
    return {key: value for key, value in line.items() if key not in keys}


class Diagnose(runs.CharLmTest):
    def check_layers(self, line, model, steps):
        layers = line["diagnostics"]["layers"]
        self.assertEqual([layer["name"] for layer in layers], ["rnn.0", "rnn.1"])
        for layer in layers:
            self.assertEqual(len(layer["gradient_norms"]), steps)
            self.assertTrue(all(x > 0 for x in layer["gradient_norms"]))
            self.assertTrue(all(x > 0 for x in layer["jacobian_norms"]))
            self.assertEqual([gate["name"] for gate in layer["gates"]], {
                "rnn": ["hidden"], "gru": ["new", "reset", "update"],
                "lstm": ["input", "forget", "cell", "output"]}[model])
            for gate in layer["gates"]:
                self.assertTrue(0 <= gate["saturated"] <= 1)
                self.assertEqual((len(gate["histogram"]), sum(gate["histogram"]) % 12), (20, 0))
            if model == "rnn":
                self.assertNotIn("time_constants", layer)
            else:
                tau = layer["time_constants"]
                self.assertTrue(0 < tau["p5"] <= tau["median"] <= tau["p95"])

    def test_every_line_tells_and_nothing_else_changes(self):
        for model, clip in (("rnn", 0.5), ("gru", 0.2), ("lstm", 0.2)):  # some gradients exceed it
            with self.subTest(model):
                words = ["--model", model, "--clip", clip]
                plain = self.train(f"plain-{model}", *words)
                told = self.train(f"told-{model}", *words, "--diagnose")
                for name in ("config.json", "model.safetensors"):
                    self.assertEqual((plain / name).read_bytes(), (told / name).read_bytes())
                lines = metrics_of(told)
                self.assertEqual([without(line, *TIMES, "diagnostics") for line in lines],
                                 [without(line, *TIMES) for line in metrics_of(plain)])
                for line in lines:
                    self.check_layers(line, model, 10)
                    self.assertEqual([k for k in line if k != "valid_loss"][-2:],
                                     ["clip", "diagnostics"])
                first = lines[0]["clip"]
                self.assertEqual(first["steps"], lines[0]["step"])
                self.assertLess(0, first["clipped"])
                self.assertLess(first["clipped"], first["steps"])
                self.assertLess(first["mean_norm"], first["largest_norm"])
                self.assertGreaterEqual(first["largest_norm"], 0.999 * lines[0]["grad_norm"])
        self.assertEqual([set(METRIC_KEYS) >= set(line) for line in metrics_of(plain)],
                         len(lines) * [True])

    def test_an_update_that_looks_back_further(self):
        run = self.train("run", "--diagnose", "--tbptt-update", 10, "--tbptt-length", 25,
                         "--clip", 0)
        for line in metrics_of(run):
            self.check_layers(line, "lstm", 25)
            self.assertNotIn("clip", line)

    def test_with_resume(self):
        run = self.train("run", "--seq-len", 300, "--batch", 2, "--train-frac", 1,
                         "--diagnose")
        before = metrics_of(run)
        self.assertGreater(len((run / "metrics.jsonl").read_text().splitlines()[-1]), 4096)
        self.succeed("train", "--resume", "--run", run, "--epochs", 3, "--diagnose")
        after = metrics_of(run)
        self.assertEqual(after[:len(before)], before)
        self.check_layers(after[-1], "lstm", 300)
        # The clock goes on, although lines are long.
        self.assertGreater(after[-1]["elapsed_s"], before[-1]["elapsed_s"])
        self.succeed("train", "--resume", "--run", run, "--epochs", 4)
        self.assertNotIn("diagnostics", metrics_of(run)[-1])

    def test_it_is_for_training_and_takes_no_value(self):
        self.refuse(2, "train", "--run", "run", "--diagnose=5",
                    says="--diagnose takes no value; see char_lm train --help")
        self.refuse(2, "eval", "--run", "run", "--text", self.text, "--diagnose",
                    says="unknown option --diagnose; see char_lm eval --help")
        self.assertIn(b"--diagnose", self.succeed("train", "--help"))


if __name__ == "__main__":
    runs.unittest.main()
