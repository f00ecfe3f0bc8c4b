"""Runs layers and optimizers of Reel on numpy arrays, by the program `conformance` (driver.cpp).

Names of parameters and states are those of Reel: `0.w_ih`, `1.forward.b`, `layers.0.h`. Arrays of
inputs and outputs are [T, B, ..] as in Reel.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    raise unittest.SkipTest("the package numpy is not installed") from None

DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
BUILD = pathlib.Path(os.environ["REEL_BUILD"]).resolve()
DRIVER = BUILD / "tests" / "conformance"


def package(name):
    """The module of that name; skips the tests of the calling file where it is not installed."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        raise unittest.SkipTest(f"the package {name.split('.')[0]} is not installed") from None


def place(variable):
    """The directory that an environment variable names; skips where it is not set."""
    path = os.environ.get(variable)
    if not path:
        raise unittest.SkipTest(f"{variable} does not say where the files are")
    return pathlib.Path(path)


def dumps(tensors, metadata):
    """A safetensors file: header length, JSON header, numbers, those of 8 bytes first."""
    header, chunks, end = {"__metadata__": metadata}, [], 0
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [end, end + array.nbytes]}
        chunks.append(np.ascontiguousarray(array).tobytes())
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(chunks)


def loads(data):
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        numbers = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]])
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def run(task, tensors):
    """The tensors of the driver's answer."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = pathlib.Path(folder, "request"), pathlib.Path(folder, "answer")
        request.write_bytes(dumps({name: np.asarray(x) for name, x in tensors.items()},
                                  {"task": json.dumps(task)}))
        done = subprocess.run([DRIVER, request, answer], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return loads(answer.read_bytes())


def prefixed(prefix, tensors):
    return {prefix + name: x for name, x in tensors.items()}


def part(prefix, tensors):
    return {name[len(prefix):]: x for name, x in tensors.items() if name.startswith(prefix)}


def run_layer(kind, x, params, state=None, lengths=None, upstream=None, **task):
    """A layer, stack or stack of bidirectional layers over x. The answer has `y`, `state.<name>`
    and, given the gradients `upstream` of these by their names, `grad.x`, `grad.state.<name>` and
    `grad.param.<name>`. The task may have units, layers, both, reverse, merge, and options."""
    tensors = {"x": x, **prefixed("param.", params), **prefixed("state.", state or {}),
               **prefixed("upstream.", upstream or {})}
    if lengths is not None:
        tensors["lengths"] = np.asarray(lengths, np.int32)
    return run({"kind": kind, "input_size": x.shape[-1], **task}, tensors)


def blocks(rows, order, count):
    """The equal blocks of the first axis in another order; of numpy or PyTorch."""
    shape = rows.shape
    return rows.reshape(count, shape[0] // count, *shape[1:])[order].reshape(shape)


class Tally:
    """How many cases of a suite were compared, and the largest difference."""

    def __init__(self, suite):
        self.suite, self.cases, self.largest, self.left_out = suite, 0, 0.0, []

    def compare(self, test, ours, theirs, tolerance, what):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        test.assertEqual(ours.shape, theirs.shape, what)
        difference = float(np.max(np.abs(ours - theirs), initial=0))
        test.assertLessEqual(difference, tolerance, what)
        self.largest = max(self.largest, difference)

    def report(self):
        print(f"{self.suite}: {self.cases} cases, largest difference {self.largest:.1e}",
              file=sys.stderr)
        for what in self.left_out:
            print(f"{self.suite}: without {what}", file=sys.stderr)
