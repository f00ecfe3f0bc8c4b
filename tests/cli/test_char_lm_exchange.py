"""char_lm export and import: a run's model in the files of other frameworks, and theirs as a run."""
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import unittest

import runs
from runs import ROOT, read_safetensors, write_safetensors


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


class Exchange(runs.CharLmTest):
    sizes = ["--batch", 4, "--seq-len", 10, "--epochs", 1]

    def loss(self, run):
        said = self.succeed("eval", "--run", run, "--text", self.text, "--json")
        return json.loads(said)["nats_per_char"]

    def import_it(self, weights, run, *words):
        return self.succeed("import", "--weights", weights, "--text", self.text, "--run",
                            self.folder / run, *self.sizes, *words).decode()

    def test_a_model_comes_back_from_every_format(self):
        for model in ("rnn", "gru", "lstm"):
            run = self.train(model, "--model", model, "--epochs", 1)
            files = {name: self.folder / f"{model}.{name}.{end}" for name, end in
                     [("torch", "safetensors"), ("keras", "npz"), ("flax", "npz")]}
            said = self.succeed("export", "--run", run, *(word for name, path in files.items()
                                                          for word in (f"--{name}", path)))
            self.assertEqual(said.decode().count("\n"), 4)  # and the program beside one
            expected = self.loss(run)
            for name, path in files.items():
                with self.subTest(model=model, format=name):
                    self.import_it(path, f"{model}-{name}")
                    # Sums of two biases may round differently.
                    self.assertAlmostEqual(self.loss(self.folder / f"{model}-{name}"), expected, 6)

    def test_an_imported_run_can_be_sampled_and_trained(self):
        run = self.train("run", "--model", "gru", "--epochs", 1)
        weights = self.folder / "weights.safetensors"
        self.succeed("export", "--run", run, "--torch", weights)
        said = self.import_it(weights, "other")
        self.assertIn("gru: 2 x 12", said)  # which follows from the weights
        other = self.folder / "other"
        self.assertEqual(self.succeed("sample", "--run", other, "--seed", 3),
                         self.succeed("sample", "--run", run, "--seed", 3))
        self.succeed("train", "--resume", "--run", other)
        self.assertLess(self.loss(other), self.loss(run))

    def test_symbols_in_another_order_and_other_names(self):
        run = self.train("run", "--model", "lstm", "--epochs", 1)
        weights = self.folder / "weights.safetensors"
        self.succeed("export", "--run", run, "--torch", weights)
        header, data = read_safetensors(weights)
        symbols = json.loads(header["__metadata__"]["symbols"])
        self.assertEqual(symbols, sorted(set(self.text.read_text())))
        # The rows of the symbols in reverse, under other names.
        for name in ("embed.weight", "head.weight", "head.bias"):
            begin, end = header[name]["data_offsets"]
            size = (end - begin) // len(symbols)
            rows = [data[begin + i * size:begin + (i + 1) * size] for i in range(len(symbols))]
            data = data[:begin] + b"".join(reversed(rows)) + data[end:]
        renamed = {name.replace("head.", "decoder.").replace("embed.", "encoder."): entry
                   for name, entry in header.items()}
        other = self.folder / "other.safetensors"
        write_safetensors(other, renamed, data)
        order = self.file("symbols.txt", "".join(reversed(symbols)))
        self.import_it(other, "other", "--symbols", order, "--rename", "decoder=head", "--rename",
                       "encoder=embed", "--embed", 6)
        self.assertAlmostEqual(self.loss(self.folder / "other"), self.loss(run), 6)

    def test_one_hot_symbols_in_another_order(self):
        run = self.train("run", "--model", "rnn", "--embed", 0, "--epochs", 1)
        weights = self.folder / "weights.safetensors"
        self.succeed("export", "--run", run, "--torch", weights)
        header, data = read_safetensors(weights)
        symbols = json.loads(header["__metadata__"]["symbols"])
        width = 4 * len(symbols)
        for name, rows in (("rnn.weight_ih_l0", 12), ("head.weight", 1), ("head.bias", 1)):
            # The columns of the first layer, the rows of the head.
            begin, end = header[name]["data_offsets"]
            size = (end - begin) // rows // len(symbols)
            turned = b"".join(data[at + i * size:at + (i + 1) * size]
                              for at in range(begin, end, size * len(symbols))
                              for i in reversed(range(len(symbols))))
            data = data[:begin] + turned + data[end:]
        self.assertEqual(header["rnn.weight_ih_l0"]["shape"], [12, width // 4])
        other = self.folder / "other.safetensors"
        write_safetensors(other, header, data)
        order = self.file("symbols.txt", "".join(reversed(symbols)))
        self.import_it(other, "other", "--symbols", order)
        self.assertAlmostEqual(self.loss(self.folder / "other"), self.loss(run), 6)

    def test_what_does_not_fit_is_refused_and_leaves_nothing(self):
        run = self.train("run", "--model", "lstm", "--epochs", 1)
        weights = self.folder / "weights.safetensors"
        self.succeed("export", "--run", run, "--torch", weights)
        words = ["import", "--weights", weights, "--text", self.text, "--run", self.folder / "new",
                 *self.sizes]
        self.refuse(1, *words, "--hidden", 13,
                    says=["do not fit this model", "rnn.weight_ih_l0 is [48, 6], but the model has [52, 6]"])
        self.refuse(1, *words, "--model", "gru", says="rnn.weight_ih_l0 is [48, 6], but the model has [36, 6]")
        self.refuse(1, *words, "--from", "keras", says="the weights of Keras do not fit this model")
        self.refuse(1, *words, "--rename", "nope=head", says="no array has \"nope\" in its name")
        self.refuse(2, *words, "--rename", "nope", says="--rename is \"nope\", but has to be OLD=NEW")
        self.refuse(1, *words, "--symbols", self.file("few.txt", "abc"), says=["--symbols", "few.txt"])
        self.refuse(1, *words, "--run", run, says="run")  # where there is one already
        other = self.file("other.txt", "abc " * 2000)
        self.refuse(1, *words, "--text", other, says="but the model has [4, 6]")
        bare = self.folder / "bare.safetensors"
        write_safetensors(bare, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234")
        self.refuse(1, *words, "--weights", bare,
                    says="the order of the gates cannot be told from the names")
        self.refuse(2, "export", "--run", run, says="one of --onnx, --torch, --keras and --flax is required")
        self.refuse(1, "export", "--run", run, "--onnx", self.folder / "none" / "model.onnx", says="none/model.onnx")

    @unittest.skipUnless(has("numpy", "onnxruntime"), "needs numpy and onnxruntime")
    def test_a_program_in_python_samples_from_the_onnx_file(self):
        """That of docs/migrating.md."""
        run = self.train("run", "--model", "lstm", "--epochs", 1)
        self.succeed("export", "--run", run, "--onnx", self.folder / "model.onnx")
        guide = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
        program, = re.findall(r"```python\n(# Samples from .*?)```", guide, re.DOTALL)
        self.assertLessEqual(program.count("\n"), 16)
        done = subprocess.run([sys.executable, "-c", program], cwd=self.folder, check=True,
                              capture_output=True, encoding="utf-8")
        self.assertEqual(len(done.stdout.rstrip("\n")), 300)
        self.assertLessEqual(set(done.stdout.rstrip("\n")), set(self.text.read_text()))


if __name__ == "__main__":
    unittest.main()
