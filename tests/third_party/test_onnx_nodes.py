"""The node tests of LSTM, GRU and RNN of the package onnx: inputs, attributes and expected outputs
as the package makes them, in f32."""
import unittest
import warnings

from reel_driver import Tally, blocks, np, package, run_layer
from weights import joined_biases

onnx = package("onnx")
from onnx.backend.test.case import node as node_tests  # noqa: E402

TOLERANCE = 1e-6  # of numbers about 1, in f32
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}  # Reel's gates among those of ONNX
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]


def cases():
    """The name, node, inputs and outputs of each test of the three ops."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other ops overflow on purpose
        collected = node_tests.collect_testcases(None)
    for case in collected:
        (node,) = case.model.graph.node if len(case.model.graph.node) == 1 else [None]
        if node is not None and node.op_type in GATES:
            inputs, outputs = case.data_sets[0]
            yield (case.name, node, dict(zip(present(node.input, INPUTS), inputs)),
                   dict(zip(present(node.output, ["Y", "Y_h", "Y_c"]), outputs)))


def present(given, names):
    return [name for mine, name in zip(given, names) if mine]


def params_of(op, node, inputs, d):
    """Reel's parameters of direction d. ONNX has a bias for each of W and R."""
    units, order, gates = inputs["R"].shape[-1], ORDER[op], GATES[op]
    params = {"w_ih": blocks(inputs["W"][d], order, gates),
              "w_hh": blocks(inputs["R"][d], order, gates)}
    bias = inputs.get("B", np.zeros((d + 1, 2 * gates * units), np.float32))[d]
    of_input, of_state = (blocks(half, order, gates) for half in np.split(bias, 2))
    params.update(joined_biases(op.lower(), of_input, of_state, units))
    if op == "LSTM" and "P" in inputs:
        params["peepholes"] = blocks(inputs["P"][d], [0, 2, 1], 3)
    return params


class OnnxNodes(unittest.TestCase):
    def check(self, name, node, inputs, outputs, tally):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        op, units = node.op_type, attributes.pop("hidden_size")
        direction = attributes.pop("direction", b"forward").decode()
        batchwise = attributes.pop("layout", 0) == 1
        options = {}
        if op == "GRU":
            after = attributes.pop("linear_before_reset", 0) == 1
            options["reset"] = "after" if after else "before"
        if op == "LSTM":
            options["peepholes"] = "P" in inputs
        self.assertEqual(attributes, {}, f"{name} has attributes that are not mapped")

        both = direction == "bidirectional"
        places = ["0.forward.", "0.backward."] if both else ["0."]
        params = {place + key: value for d, place in enumerate(places)
                  for key, value in params_of(op, node, inputs, d).items()}
        state = {}
        for letter in "hc":
            start = inputs.get(f"initial_{letter}")
            for d, place in enumerate(places if start is not None else []):
                state[f"layers.{place}{letter}"] = start[:, d] if batchwise else start[d]
        if op == "LSTM" and len(state) == len(places):  # one of h and c is given
            raise AssertionError(f"{name} has one initial state of two")
        x = inputs["X"].swapaxes(0, 1) if batchwise else inputs["X"]
        answer = run_layer(op.lower(), x, params, state=state, lengths=inputs.get("sequence_lens"),
                           units=units, both=both, reverse=direction == "reverse", **options)

        y = np.stack(np.split(answer["y"], len(places), -1), 1)  # [T, directions, B, H]
        ours = {"Y": y.transpose(2, 0, 1, 3) if batchwise else y}
        for letter in "hc" if op == "LSTM" else "h":
            ours[f"Y_{letter}"] = np.stack([answer[f"state.layers.{place}{letter}"]
                                            for place in places], 1 if batchwise else 0)
        self.assertGreater(len(outputs), 0)
        for what, expected in outputs.items():
            tally.compare(self, ours[what], expected, TOLERANCE, f"{name}: {what}")
        tally.cases += 1

    def test_all_nodes(self):
        tally = Tally("ONNX nodes of RNN, GRU and LSTM")
        for case in cases():
            with self.subTest(case[0]):
                self.check(*case, tally)
        tally.report()
        self.assertGreater(tally.cases, 0)


if __name__ == "__main__":
    unittest.main()
