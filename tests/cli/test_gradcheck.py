"""char_lm gradcheck: the gradients of the command's own models, new and trained."""
import json
import struct

import runs
from runs import read_safetensors, write_safetensors


class Gradcheck(runs.CharLmTest):
    def rows(self, *words):
        result = json.loads(self.succeed("gradcheck", "--json", *words))
        self.assertTrue(result["ok"])
        for row in result["rows"]:
            self.assertEqual((row["verdict"], row["failures"]), ("ok", 0))
            self.assertLessEqual(row["error"], row["tolerance"])
        return result["rows"]

    def test_every_kind_of_model(self):
        states = {"rnn": ["h"], "gru": ["h"], "lstm": ["h", "c"]}
        for model, parts in states.items():
            with self.subTest(model):
                rows = {row["name"]: row for row in self.rows("--model", model, "--layers", 2)}
                expected = {"embed.w", "head.w", "head.b", "inputs"}
                expected |= {f"state.{layer}.{part}" for layer in (0, 1) for part in parts}
                expected |= {f"rnn.{layer}.{name}" for layer in (0, 1)
                             for name in ("w_ih", "w_hh", "b")}
                self.assertLessEqual(expected, set(rows))
                for name, row in rows.items():
                    size = 1
                    for n in row["shape"]:
                        size *= n
                    self.assertEqual(row["checked"], size, name)
                    self.assertTrue(row["where"].startswith(name + "["), row)

    def test_gates_are_named(self):
        table = self.succeed("gradcheck").decode()
        self.assertRegex(table, r"rnn\.0\.w_hh\[(input|forget|cell|output), \d, \d\]")
        self.assertRegex(table, r"rnn\.1\.b\[(input|forget|cell|output), \d\]")
        self.assertRegex(self.succeed("gradcheck", "--model", "gru").decode(),
                         r"rnn\.0\.w_ih\[(reset|update|new), \d, \d\]")

    def test_orders_and_the_fast_mode(self):
        slow, fast = (self.rows("--layers", 1, "--order", 2, "--dropout", 0.2, *words)
                      for words in ([], ["--fast"]))
        self.assertEqual([(row["name"], row["order"]) for row in slow],
                         [(row["name"], row["order"]) for row in fast])
        self.assertEqual({row["order"] for row in slow}, {1, 2})
        self.assertEqual({row["checked"] for row in fast}, {3})

    def test_the_output_is_the_same_every_time(self):
        words = ["gradcheck", "--dropout", 0.5, "--seed", 7]
        self.assertEqual(self.succeed(*words), self.succeed(*words))
        self.assertNotEqual(self.succeed(*words), self.succeed(*words[:-1], 8))

    def test_a_trained_run(self):
        run = self.train("run", "--epochs", 1, "--model", "gru", "--layers", 1)
        before = runs.hash_of(run)
        rows = {row["name"]: row for row in self.rows("--run", run, "--batch", 1)}
        self.assertEqual(rows["rnn.0.w_hh"]["shape"], [36, 12])
        self.assertEqual(runs.hash_of(run), before)
        for option, value in (("model", "rnn"), ("hidden", 12), ("vocabulary", 9)):
            self.refuse(1, "gradcheck", "--run", run, f"--{option}", value,
                        says=f"--{option} contradicts --run")

    def test_a_model_that_diverged(self):
        run = self.train("run", "--epochs", 1, "--layers", 1)
        header, data = read_safetensors(run / "model.safetensors")
        begin, _ = header["head.b"]["data_offsets"]
        data = data[:begin] + struct.pack("<f", float("inf")) + data[begin + 4:]
        metadata = {**header["__metadata__"]}
        del metadata["run.checksum"]
        write_safetensors(run / "model.safetensors", {**header, "__metadata__": metadata}, data)
        self.refuse(1, "gradcheck", "--run", run, "--fast",
                    says="tensor head.b holds a number that is not finite")

    def test_too_many_coordinates(self):
        self.refuse(1, "gradcheck", "--hidden", 100, says=["123,344 coordinates", "--fast"])
        self.rows("--hidden", 100, "--fast")
