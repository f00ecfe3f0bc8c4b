"""char_lm trains as publications did: recipes, the settings that they need, and a text to test on."""
import json
import math
import struct
import unittest

import runs
from pages import Page
from runs import metrics_of, read_safetensors

RECIPE = {"embed": 0, "init_uniform": 0.08, "train_frac": 0.8, "test_frac": 0.1, "seq_len": 100,
          "batch": 100, "epochs": 50, "optimizer": "rmsprop", "lr": 0.002, "decay_rate": 0.95,
          "schedule": "exponential", "lr_decay": 0.95, "lr_decay_after": 10, "clip": 0.0,
          "clip_value": 5.0}


def config_of(run):
    return json.loads((run / "config.json").read_text())


def parameters_of(run, file="model.safetensors"):
    """The values of the parameters by their names; they are f32."""
    header, data = read_safetensors(run / file)
    values = {}
    for name, entry in header.items():
        if not name.startswith(("__", "run.")):
            begin, end = entry["data_offsets"]
            values[name] = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    return values


def weights_of(run):
    return {name: bytes(str(value), "ascii") for name, value in parameters_of(run).items()}


class Recipes(runs.CharLmTest):
    small = ["--hidden", 12, "--layers", 1, "--batch", 4, "--seq-len", 10, "--epochs", 2]

    def test_what_is_not_given_is_the_recipe(self):
        run = self.train("run", "--recipe", "karpathy", "--lr", 0.01)
        given = {"hidden": 12, "layers": 1, "batch": 4, "seq_len": 10, "epochs": 2, "lr": 0.01,
                 "tbptt_update": 10, "tbptt_length": 10}
        config = config_of(run)
        defaults = config_of(self.train("plain", "--hidden", 12))
        for key, value in config.items():
            expected = given.get(key, RECIPE.get(key, defaults[key]))
            if key not in ("text", "vocabulary"):
                self.assertEqual(value, expected, key)
        # The same settings one by one make the same run.
        words = [word for key, value in RECIPE.items() if key not in given
                 for word in (f"--{key.replace('_', '-')}", value)]
        spelt_out = self.train("spelt-out", *words, "--lr", 0.01)
        self.assertEqual((run / "model.safetensors").read_bytes(),
                         (spelt_out / "model.safetensors").read_bytes())
        self.assertEqual((run / "config.json").read_bytes(),
                         (spelt_out / "config.json").read_bytes())

    def test_the_help_spells_it_out(self):
        text = " ".join(self.succeed("train", "--help").decode().split())
        for key, value in RECIPE.items():
            if not isinstance(value, str) and key != "lr":
                self.assertIn(f"--{key.replace('_', '-')} {value:g}", text)
        self.assertIn("--optimizer rmsprop --lr 2e-3", text)
        self.assertIn("--recipe karpathy: ", text)

    def test_refusals(self):
        self.refuse(2, "train", "--run", "new", "--recipe", "carpathy",
                    says=["--recipe is", "carpathy", "karpathy", "--help"])
        run = self.train("run", "--epochs", 1)
        self.refuse(1, "train", "--resume", "--run", run, "--recipe", "karpathy",
                    says="contradicts the run")

    def test_resumed_with_the_same_words(self):
        words = ["--recipe", "karpathy"]
        whole, run = self.train("whole", *words), self.train("run", *words, "--epochs", 1)
        self.succeed("train", "--resume", "--text", self.text, "--run", run, *self.small, *words)
        for name in ("model.safetensors", "best.safetensors", "config.json"):
            self.assertEqual((whole / name).read_bytes(), (run / name).read_bytes(), name)

    def test_a_search_with_it(self):
        words = ["tune", "--text", self.text, "--run", "search", *self.small, "--recipe", "karpathy",
                 "--trials", 2]
        self.succeed(*words, "--over", "lr=1e-3..1e-2")
        search = json.loads((self.folder / "search" / "tune.json").read_text())
        self.assertEqual({key: search["config"][key] for key in RECIPE},
                         {**RECIPE, "batch": 4, "seq_len": 10, "epochs": 2})
        lr = config_of(self.folder / "search" / "trial-001")["lr"]
        self.assertNotEqual(lr, 0.002)
        self.refuse(2, "tune", "--resume", "--run", "search", "--recipe", "karpathy",
                    says="--recipe is of the search already")
        self.refuse(2, *words, "--over", "test-frac=0.1..0.2", says="test-frac cannot be searched")


class Settings(runs.CharLmTest):
    def test_one_hot(self):
        for model in ("lstm", "gru", "rnn"):
            with self.subTest(model):
                run = self.train(model, "--embed", 0, "--model", model, "--epochs", 1)
                symbols = len(config_of(run)["vocabulary"])
                header, _ = read_safetensors(run / "model.safetensors")
                self.assertNotIn("embed.w", header)
                self.assertEqual(header["rnn.0.w_ih"]["shape"][1], symbols)
                # What the model writes step by step is what it predicts over the text.
                written = self.succeed("sample", "--run", run, "--prime", "the", "--length", 300,
                                       "--temperature", 0)
                text = self.file("written.txt", written)
                loss = json.loads(self.succeed("eval", "--run", run, "--text", text, "--json"))
                self.assertLess(loss["nats_per_char"], math.log(symbols))
                self.succeed("info", "--run", run)
        self.succeed("gradcheck", "--embed", 0, "--init-uniform", 0.5)

    def test_one_hot_is_an_embedding_by_the_identity(self):
        # One step of an rnn without momentum: its first loss and its weights are those of an
        # embedding that is the identity, which cannot be asked for, so this is by hand.
        run = self.train("run", "--embed", 0, "--model", "rnn", "--layers", 1, "--hidden", 2,
                         "--init-uniform", 0.5, "--epochs", 1)
        p = parameters_of(run)
        symbols = config_of(run)["vocabulary"]
        count, h, nats = len(symbols), [0.0, 0.0], 0.0
        text = "the cat sat"
        for i, symbol in enumerate(text[:-1]):
            column = symbols.index(symbol)
            h = [math.tanh(p["rnn.0.w_ih"][k * count + column] + p["rnn.0.b"][k]
                           + sum(p["rnn.0.w_hh"][2 * k + j] * h[j] for j in (0, 1))) for k in (0, 1)]
            logits = [p["head.b"][v] + sum(p["head.w"][2 * v + j] * h[j] for j in (0, 1))
                      for v in range(count)]
            nats += math.log(sum(map(math.exp, logits))) - logits[symbols.index(text[i + 1])]
        told = json.loads(self.succeed("eval", "--run", run, "--text", self.file("t", text), "--json"))
        self.assertAlmostEqual(told["nats_per_char"], nats / (len(text) - 1), places=5)

    def test_initial_values(self):
        # A rate that changes nothing in f32 leaves what was drawn.
        still = ["--epochs", 1, "--optimizer", "sgd", "--lr", 1e-30]
        run = self.train("run", *still, "--init-uniform", 0.08)
        for name, values in parameters_of(run).items():
            self.assertLessEqual(max(map(abs, values)), 0.08, name)
            self.assertGreater(max(map(abs, values)), 0.03, name)
            mean = sum(values) / len(values)
            self.assertLess(abs(mean), 0.08 / math.sqrt(3) * 5 / math.sqrt(len(values)), name)
        wide = parameters_of(self.train("wide", *still, "--init-uniform", 0.16, "--layers", 1))
        drawn = parameters_of(run)
        self.assertNotEqual(drawn["rnn.0.w_hh"], drawn["rnn.1.w_hh"])
        for name, values in wide.items():  # each from the stream of its name
            for a, b in zip(values, drawn[name]):
                self.assertAlmostEqual(a, 2 * b, places=6)

    def test_limits_of_elements(self):
        # With sgd at rate 1 the change of a parameter in a step is its clipped gradient.
        once = ["--epochs", 1, "--batch", 100, "--train-frac", 1, "--optimizer", "sgd",
                "--seq-len", 20, "--layers", 1]
        before = parameters_of(self.train("before", *once, "--lr", 1e-30))
        changes = {}
        for name, words in {"any": ["--clip", 0], "value": ["--clip-value", 0.002],
                            "both": ["--clip-value", 0.002, "--clip", 0.001]}.items():
            run = self.train(name, *once, "--lr", 1, *words)
            self.assertEqual(metrics_of(run)[-1]["step"], 1)
            after = parameters_of(run)
            changes[name] = [b - a for key in sorted(after) for a, b in zip(before[key], after[key])]
            self.assertEqual(config_of(run)["clip"], 0.001 if name == "both" else 0)
            norm = math.sqrt(sum(x * x for x in changes["any"]))
            self.assertAlmostEqual(metrics_of(run)[-1]["grad_norm"], norm, places=5)
        self.assertGreater(max(map(abs, changes["any"])), 0.002)
        for plain, clipped in zip(changes["any"], changes["value"]):
            self.assertAlmostEqual(clipped, max(-0.002, min(plain, 0.002)), places=6)
        self.assertAlmostEqual(math.sqrt(sum(x * x for x in changes["both"])), 0.001, places=6)

    def test_decay_rate(self):
        rates = [self.train(f"run-{rate}", "--optimizer", "rmsprop", "--decay-rate", rate,
                            "--epochs", 1) for rate in (0.95, 0.99)]
        plain = self.train("plain", "--optimizer", "rmsprop", "--epochs", 1)
        self.assertEqual(weights_of(rates[1]), weights_of(plain))
        self.assertNotEqual(weights_of(rates[0]), weights_of(plain))
        self.refuse(2, "train", "--run", "new", "--decay-rate", 0.9,
                    says="--decay-rate is of --optimizer rmsprop; leave it out with adam")

    def test_runs_from_before_them(self):
        whole, run = self.train("whole"), self.train("run", "--epochs", 1)
        config = config_of(run)
        for key in ("init_uniform", "test_frac", "decay_rate", "clip_value"):
            del config[key]
            self.assertNotIn(key, read_safetensors(run / "model.safetensors")[0]["__metadata__"]["config"])
        (run / "config.json").write_text(json.dumps(config))
        self.succeed("info", "--run", run)
        self.succeed("train", "--resume", "--run", run, "--epochs", 2)
        self.assertEqual((run / "model.safetensors").read_bytes(),
                         (whole / "model.safetensors").read_bytes())


class Testing(runs.CharLmTest):
    parts = ["--train-frac", 0.8, "--test-frac", 0.1]

    def test_the_best_weights_are_tested(self):
        # A rate that explodes in the second epoch makes the first one the best.
        wild = ["--optimizer", "sgd", "--lr", 0.3, "--lr-decay", 100, "--lr-decay-after", 1]
        said = self.succeed("train", "--text", self.text, "--run", "run", *self.small, *self.parts,
                            *wild, "--json").decode()
        run, end = self.folder / "run", json.loads(said.splitlines()[-1])
        self.assertEqual((end["end"], end["best_epoch"]), ("finished", 1))
        # In one stream the window's losses are those of eval but for the first symbols' contexts.
        self.assertAlmostEqual(end["test_loss"], self.eval_of(run, "test", "best"), delta=0.05)
        self.assertNotAlmostEqual(end["test_loss"], self.eval_of(run, "test", "last"), delta=0.05)
        told = json.loads(self.succeed("info", "--run", run, "--json"))
        self.assertEqual(told["test_loss"], end["test_loss"])
        self.assertIn(f"{end['test_loss']:.4f} nats/char\n", self.succeed("info", "--run", run).decode())
        rows = {row[0]: row[1:] for row in Page((run / "report.html").read_text()).rows}
        self.assertRegex(rows["test loss"][0], rf"\A{end['test_loss']:.4f} nats, .* after epoch 1\Z")
        quiet = self.succeed("train", "--resume", "--run", run, "--quiet").decode()
        self.assertRegex(quiet, rf"; test loss {end['test_loss']:.4f} nats/char, of these weights\n\Z")

    def eval_of(self, run, part, checkpoint="last", *words):
        return json.loads(self.succeed("eval", "--run", run, "--part", part, "--json", "--checkpoint",
                                       checkpoint, *words))["nats_per_char"]

    def test_parts_are_where_they_should_be(self):
        run = self.train("run", *self.parts, "--epochs", 1)
        text = self.text.read_text()
        for part, content in (("train", text[:2400]), ("valid", text[2400:2700]),
                              ("test", text[2700:])):
            cut = self.file(f"{part}.txt", content)
            told = json.loads(self.succeed("eval", "--run", run, "--text", cut, "--json"))
            self.assertEqual(told["nats_per_char"], self.eval_of(run, part))
        # Training sees none of the rest.
        self.text = self.file("text.txt", text[:2700] + text[2700:][::-1])
        other = self.train("other", *self.parts, "--epochs", 1)
        self.assertEqual(weights_of(other), weights_of(run))
        self.assertEqual(metrics_of(other)[-1]["valid_loss"], metrics_of(run)[-1]["valid_loss"])

    def test_the_last_weights_without_validation(self):
        run = self.train("run", "--train-frac", 0.9, "--test-frac", 0.1)
        self.assertNotIn("valid_loss", metrics_of(run)[-1])
        told = json.loads(self.succeed("info", "--run", run, "--json"))
        self.assertAlmostEqual(told["test_loss"], self.eval_of(run, "test"), delta=0.05)
        self.refuse(1, "eval", "--run", run, "--part", "valid",
                    says="--part valid: there is none in the run in")

    def test_more_epochs_are_tested_again(self):
        whole = self.train("whole", *self.parts)
        run = self.train("run", *self.parts, "--epochs", 1)
        first = json.loads(self.succeed("info", "--run", run, "--json"))["test_loss"]
        runs.lengthen_metrics(run)
        self.stop_at_next_line(run, "--epochs", 2)
        self.assertNotIn("test_loss", json.loads(self.succeed("info", "--run", run, "--json")))
        self.succeed("train", "--resume", "--run", run)
        last = json.loads(self.succeed("info", "--run", run, "--json"))["test_loss"]
        self.assertNotEqual(first, last)
        self.assertEqual((run / "model.safetensors").read_bytes(),
                         (whole / "model.safetensors").read_bytes())

    def test_the_text_of_a_part_is_that_of_the_run(self):
        run = self.train("run", *self.parts, "--epochs", 1)
        before = self.eval_of(run, "test")
        moved = self.text.rename(self.folder / "moved.txt")
        self.refuse(1, "eval", "--run", run, "--part", "test", says=["No such file", "--text"])
        self.assertEqual(self.eval_of(run, "test", "last", "--text", moved), before)
        other = self.file("other.txt", runs.small_text(4000))
        self.refuse(1, "eval", "--run", run, "--part", "test", "--text", other,
                    says="not the text that the run in")

    def test_refusals(self):
        new = ["train", "--run", "new", "--text", self.text, *self.small]
        self.refuse(2, *new, "--test-frac", 0.2,
                    says="--train-frac 0.9 and test-frac 0.2 are more than the whole text")
        self.refuse(2, *new, "--test-frac", 0.1, "--schedule", "plateau",
                    says="--schedule plateau follows the validation loss, but --train-frac 0.9 and "
                         "--test-frac 0.1 leaves no text")
        self.refuse(1, *new, "--train-frac", 0.8, "--test-frac", 0.01,
                    says="too short: 3,000 characters, but --batch 4 x --seq-len 10 with "
                         "--train-frac 0.8 and --test-frac 0.01 takes at least 4100")
        run = self.train("run", "--epochs", 1)
        self.refuse(1, "eval", "--run", run, "--part", "test", says="there is none in the run in")
        self.refuse(1, "train", "--resume", "--run", run, "--test-frac", 0.05,
                    says="--test-frac 0.05 contradicts the run")


if __name__ == "__main__":
    unittest.main()
