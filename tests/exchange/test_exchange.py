"""Models of Reel in PyTorch and ONNX Runtime, and theirs in Reel: build/tests/exchange writes them.

What is not installed is skipped: torch, safetensors, onnx, onnxruntime.
"""
import importlib.util
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
PROGRAM = BUILD / "tests" / "exchange"
TOLERANCE = 1e-5


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


def needs(*modules):
    return unittest.skipUnless(has("numpy", *modules), f"needs {', '.join(modules)}")


def read_values(path):
    """The arrays of a safetensors file, as dicts of what goes in and what comes out."""
    import numpy
    content = path.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    values = {"in": {}, "out": {}}
    for name, entry in json.loads(content[8:8 + length]).items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = {"F32": "<f4", "I32": "<i4"}[entry["dtype"]]
        array = numpy.frombuffer(content[begin:end], dtype).reshape(entry["shape"])
        side, name = name.split(":")
        values[side][name] = array
    return values["in"], values["out"]


def load_program(path):
    """The module of a generated Python program."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Exchange(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.directory.name)
        subprocess.run([PROGRAM, "write", cls.folder], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def models(self, extension):
        paths = sorted(self.folder.glob("*" + extension))
        self.assertGreater(len(paths), 4)
        return [(path, *read_values(self.folder / f"{path.stem}_values.safetensors"))
                for path in paths]

    def assert_close(self, ours, theirs, lengths=None):
        import numpy
        self.assertEqual(ours.shape, theirs.shape)
        difference = numpy.abs(ours - theirs)
        if lengths is not None:  # what is beyond the lengths may be anything
            difference[numpy.arange(len(ours))[:, None] >= lengths] = 0
        self.assertLess(difference.max(), TOLERANCE)

    def assert_outputs(self, ours, theirs, inputs):
        for (name, value), their in zip(ours.items(), theirs):
            with self.subTest(output=name):
                is_sequence = "lengths" in inputs and value.shape[0] == len(inputs["x"])
                self.assert_close(value, their, inputs.get("lengths") if is_sequence else None)

    @needs("torch", "safetensors")
    def test_pytorch_runs_the_generated_program(self):
        import numpy
        import torch
        for path, inputs, outputs in self.models(".py"):
            model = load_program(path).load()
            arguments = {name: torch.from_numpy(numpy.array(x)) for name, x in inputs.items()}
            with torch.no_grad():
                results = model(**arguments)
            results = results if isinstance(results, tuple) else (results,)
            named = dict(zip(self.order_of_outputs(path), results))
            self.assert_outputs(outputs, [named[name].numpy() for name in outputs], inputs)

    @staticmethod
    def order_of_outputs(path):
        """As the program's docstring states it."""
        line, = (l for l in path.read_text().splitlines() if l.strip().startswith("# returns "))
        return line.strip().removeprefix("# returns ").split(", ")

    @needs("onnx")
    def test_the_onnx_checker_accepts_the_files(self):
        import onnx
        for path, _, _ in self.models(".onnx"):
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
            self.assertLessEqual(model.opset_import[0].version, 17)

    @needs("onnxruntime")
    def test_onnx_runtime_gives_the_same_outputs(self):
        import numpy
        import onnxruntime
        for path, inputs, outputs in self.models(".onnx"):
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            types = {i.name: i.type for i in session.get_inputs()}
            arguments = {name: x.astype(numpy.int64) if types[name] == "tensor(int64)" else x
                         for name, x in inputs.items()}
            self.assert_outputs(outputs, session.run(list(outputs), arguments), inputs)

    def run_here(self, model, values, again=None):
        """The outputs of an ONNX file in Reel."""
        outputs = self.folder / "outputs.safetensors"
        subprocess.run([PROGRAM, "run", model, values, outputs, *([again] if again else [])],
                       check=True, capture_output=True, encoding="utf-8")
        return read_values(outputs)[1]

    @needs()
    def test_our_onnx_files_are_read_again(self):
        for path, inputs, outputs in self.models(".onnx"):
            values = self.folder / f"{path.stem}_values.safetensors"
            again = self.folder / "again.model"
            for _ in range(2):  # and what was read is written and read once more
                results = self.run_here(path, values, again)
                self.assert_outputs(outputs, [results[name] for name in outputs], inputs)
                path = again

    def check_model_of_pytorch(self, export):
        """Exports a model with `export(model, inputs, path, **names)` and runs it in Reel."""
        import numpy
        import torch
        from safetensors.numpy import save_file
        torch.manual_seed(1)

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = torch.nn.Embedding(11, 8)
                self.rnn = torch.nn.GRU(8, 6, num_layers=2, bidirectional=True)
                self.last = torch.nn.LSTM(12, 5, batch_first=True)
                self.norm = torch.nn.LayerNorm(5)
                self.head = torch.nn.Linear(5, 4)

            def forward(self, tokens, h0):
                y, _ = self.rnn(self.embed(tokens), h0)
                y, (h, _) = self.last(y.transpose(0, 1))
                return torch.log_softmax(self.head(self.norm(y)), -1), h

        model = Model().eval()
        tokens, h0 = torch.randint(0, 11, (7, 3)), torch.randn(4, 3, 6)
        path, values = self.folder / "torch.model", self.folder / "torch_values.safetensors"
        export(model, (tokens, h0), path, input_names=["tokens", "h0"], output_names=["y", "h"])
        save_file({"in:tokens": tokens.numpy().astype(numpy.int32), "in:h0": h0.numpy()}, values)
        with torch.no_grad():
            theirs = model(tokens, h0)
        ours = self.run_here(path, values)
        for name, their in zip(("y", "h"), theirs):
            self.assert_close(ours[name], their.numpy())

    @staticmethod
    def export(model, inputs, path, **names):
        import torch
        torch.onnx.export(model, inputs, path, opset_version=17, dynamo=False,
                          dynamic_axes={"tokens": {0: "T", 1: "B"}, "h0": {1: "B"}}, **names)

    @needs("onnx", "torch", "safetensors")
    def test_onnx_files_of_pytorch_are_read(self):
        self.check_model_of_pytorch(self.export)

    @needs("onnx", "torch", "safetensors")
    def test_onnx_files_of_pytorch_with_weights_in_another_file_are_read(self):
        import onnx

        def export(model, inputs, path, **names):
            self.export(model, inputs, path, **names)
            onnx.save_model(onnx.load(path), path, save_as_external_data=True,
                            location="weights", size_threshold=0)
            self.assertGreater((path.parent / "weights").stat().st_size, path.stat().st_size)

        self.check_model_of_pytorch(export)

    @needs("onnx", "onnxscript", "torch", "safetensors")
    def test_onnx_files_of_pytorchs_exporter_by_default_are_read(self):
        import torch

        def export(model, inputs, path, **names):
            torch.onnx.export(model, inputs, path, verbose=False, **names)
            self.assertTrue(path.with_name(path.name + ".data").exists())

        self.check_model_of_pytorch(export)


if __name__ == "__main__":
    unittest.main()
