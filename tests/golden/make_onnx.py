#!/usr/bin/env python3
"""Writes onnx.safetensors: what ONNX's reference evaluator computes for RNN, GRU and LSTM, in f64.

    python3 tests/golden/make_onnx.py [--out DIR]      (with the package onnx)

The cases have the names, sizes and inputs of the node tests of the ONNX standard, whose weights are
all equal; with `_drawn` they have random weights, which tell one gate from another. Keys are
`<op>.<case>.<what>`, with the names of the standard:
    X                            [T, B, D]; with `batchwise` [B, T, D]
    W, R, B, P                   [directions, G H, D], [directions, G H, H], [directions, 2 G H],
                                 [directions, 3 H]; gates LSTM i, o, f, c; GRU z, r, h; P i, o, f
    initial_h, initial_c         [directions, B, H], with `batchwise` [B, directions, H]
    sequence_lens                I32 [B]
    Y, Y_h, Y_c                  [T, directions, B, H], [directions, B, H]; with `batchwise`
                                 [B, T, directions, H], [B, directions, H]
    reverse, batchwise, linear_before_reset      I32 [], 1 if the node has this attribute
Inputs that a case does not have are missing. The evaluator runs all rows over all steps, so rows of
different lengths are run one by one.
"""
import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import safetensors_file

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS = {"RNN": ["X", "W", "R", "B", "sequence_lens", "initial_h"]}
INPUTS["GRU"] = INPUTS["RNN"]
INPUTS["LSTM"] = [*INPUTS["RNN"], "initial_c", "P"]
OUTPUTS = {"RNN": ["Y", "Y_h"], "GRU": ["Y", "Y_h"], "LSTM": ["Y", "Y_h", "Y_c"]}
ATTRIBUTES = {"reverse": {"direction": "reverse"}, "batchwise": {"layout": 1},
              "linear_before_reset": {"linear_before_reset": 1},
              "bidirectional": {"direction": "bidirectional"}}


def evaluate(op, inputs, hidden, flags):
    """The outputs of a model that is this one node."""
    attributes = {}
    for flag in flags:
        attributes.update(ATTRIBUTES[flag])
    names = [name if name in inputs else "" for name in INPUTS[op]]
    node = helper.make_node(op, names, OUTPUTS[op], hidden_size=hidden, **attributes)
    given = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, inputs[name].shape)
             for name in names if name]
    results = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)
               for name in OUTPUTS[op]]
    model = helper.make_model(helper.make_graph([node], op, given, results),
                              opset_imports=[helper.make_opsetid("", 14)])
    return dict(zip(OUTPUTS[op], ReferenceEvaluator(model).run(None, inputs)))


def evaluate_rows(op, inputs, hidden, flags, lengths):
    """Each row by itself, up to its length; Y is zero from there on."""
    results = []
    for row, length in enumerate(lengths):
        own = {name: array[:, row : row + 1] if name in ("X", "initial_h", "initial_c") else array
               for name, array in inputs.items()}
        own["X"] = own["X"][:length]
        result = evaluate(op, own, hidden, flags)
        missing = len(inputs["X"]) - length
        result["Y"] = np.pad(result["Y"], [(0, missing), (0, 0), (0, 0), (0, 0)])
        results.append(result)
    return {name: np.concatenate([result[name] for result in results], axis=-2)
            for name in OUTPUTS[op]}


def case(op, shape, hidden, scale, flags=(), bias=None, more=(), lengths=None, random=None):
    """The node's inputs, flags and outputs; `more` names the inputs besides X, W, R and B."""
    inputs_size, directions = shape[2], 1 + ("bidirectional" in flags)
    rows = GATES[op] * hidden
    draw = random.standard_normal if random else lambda size: scale * np.ones(size)
    inputs = {"X": np.arange(1.0, 1 + np.prod(shape)).reshape(shape),
              "W": draw((directions, rows, inputs_size)), "R": draw((directions, rows, hidden))}
    if random:
        inputs["X"] = random.standard_normal(shape)
    if bias is not None:
        first = draw((directions, rows)) if random else bias * np.ones((directions, rows))
        second = draw((directions, rows)) if random else np.zeros((directions, rows))
        inputs["B"] = np.concatenate([first, second], axis=1)
    batch = shape[0] if "batchwise" in flags else shape[1]
    state = (batch, directions, hidden) if "batchwise" in flags else (directions, batch, hidden)
    for name in more:
        if name == "P":
            inputs[name] = draw((directions, 3 * hidden))
        else:
            inputs[name] = random.standard_normal(state) if random else np.zeros(state)
    if lengths is None:
        outputs = evaluate(op, inputs, hidden, flags)
    else:
        outputs = evaluate_rows(op, inputs, hidden, flags, lengths)
        inputs["sequence_lens"] = np.array(lengths, dtype=np.int32)
    marks = {flag: np.array(1, dtype=np.int32) for flag in flags if flag != "bidirectional"}
    return {**inputs, **marks, **outputs}


def cases(op):
    """The arguments of case() by name."""
    scale = {"RNN": 0.5, "GRU": 0.2, "LSTM": 0.3}[op]
    hidden = {"RNN": [4, 5, 4], "GRU": [5, 3, 6], "LSTM": [3, 4, 7]}[op]
    states = ["initial_h", "initial_c"] if op == "LSTM" else ["initial_h"]
    found = {"defaults": ((1, 3, 2), hidden[0], 0.1),
             "initial_bias": ((1, 3, 3), hidden[1], 0.1, (), 0.1),
             "batchwise": ((3, 1, 2), hidden[2], scale, ["batchwise"]),
             "reverse": ((3, 1, 2), hidden[0], 0.1, ["reverse"]),
             "bidirectional": ((3, 1, 2), hidden[0], 0.1, ["bidirectional"]),
             "seq_length": ((2, 3, 3), 5, 0.1, (), 0.1),
             "lengths": ((4, 3, 2), 3, 0.1, (), 0.1, states, [2, 4, 1]),
             "lengths_bidirectional": ((4, 3, 2), 3, 0.1, ["bidirectional"], 0.1, states,
                                       [3, 1, 4])}
    if op == "GRU":
        found["linear_before_reset"] = ((3, 2, 2), 4, 0.1, ["linear_before_reset"], 0.1, states)
    if op == "LSTM":
        found["peepholes"] = ((1, 2, 4), 3, 0.1, (), 0.0, [*states, "P"])
        found["peepholes_bidirectional"] = ((3, 2, 2), 3, 0.1, ["bidirectional"], 0.1,
                                            [*states, "P"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent,
                        help="directory to write to (default: that of this script)")
    out = parser.parse_args().out
    tensors, random = {}, np.random.RandomState(17)
    for op in GATES:
        for name, arguments in cases(op).items():
            for suffix, source in (("", None), ("_drawn", random)):
                made = case(op, *arguments, random=source)
                tensors.update({f"{op.lower()}.{name}{suffix}.{what}": array
                                for what, array in made.items()})
    safetensors_file.save(out / "onnx.safetensors", tensors, onnx=onnx.__version__)


if __name__ == "__main__":
    main()
