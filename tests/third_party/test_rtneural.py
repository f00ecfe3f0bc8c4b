"""The models with an LSTM or GRU of RTNeural's tests, in f64, within the thresholds of those tests.
REEL_RTNEURAL names the folder with its sources: its models/ and test_data/ are read."""
import json
import unittest

from reel_driver import Tally, np, place, prefixed, run, run_layer
from weights import from_keras, from_torch

ROOT = place("REEL_RTNEURAL")
if not (ROOT / "models" / "lstm.json").exists():
    raise unittest.SkipTest(f"{ROOT}/models has no lstm.json")

THRESHOLDS = {"gru": 5e-6, "gru_1d": 1e-6, "gru_torch": 1e-6, "lstm": 1e-6, "lstm_1d": 1e-6,
              "lstm_torch": 1e-6}


def dense(x, w, b, activation=""):
    params = {"param.w": np.asarray(w), "param.b": np.asarray(b)}
    return run({"kind": "linear", "input_size": x.shape[-1], "units": len(b),
                "activation": activation}, {"x": x, **params})["y"]


def recurrent(kind, x, params):
    return run_layer(kind, x, prefixed("0.", params), units=params["w_hh"].shape[1])["y"]


def keras_model(model, x):
    """Layers in a list, with Keras's weights."""
    for layer in model["layers"]:
        weights = [np.array(w) for w in layer["weights"]]
        if layer["type"] in ("dense", "time-distributed-dense"):
            x = dense(x, weights[0].T, weights[1], layer["activation"])
        else:
            x = recurrent(layer["type"], x, from_keras(layer["type"], *weights))
    return x


def torch_model(model, x):
    """A state_dict with the layers <kind>, three layers <kind>2, and dense."""
    weights = {name: np.array(w) for name, w in model.items()}
    kind = next(iter(weights)).split(".")[0]
    for layer in [f"{kind}.*_l0", *(f"{kind}2.*_l{k}" for k in range(3))]:
        begin, end = layer.split("*")
        own = {name[len(begin) : -len(end)]: w for name, w in weights.items()
               if name.startswith(begin) and name.endswith(end)}
        x = recurrent(kind, x, from_torch(kind, own, own["weight_hh"].shape[1]))
    return dense(x, weights["dense.weight"], weights["dense.bias"])


class RtNeural(unittest.TestCase):
    def test_all_models(self):
        tally = Tally("RTNeural's models")
        for name, threshold in THRESHOLDS.items():
            with self.subTest(name):
                model = json.loads((ROOT / "models" / f"{name}.json").read_text())
                x, expected = (np.loadtxt(ROOT / "test_data" / f"{name}_{part}_python.csv")
                               for part in "xy")
                run_model = keras_model if "layers" in model else torch_model
                y = run_model(model, x[:, None, None])
                tally.compare(self, y[:, 0, 0], expected, threshold, name)
                tally.cases += 1
        tally.report()


if __name__ == "__main__":
    unittest.main()
