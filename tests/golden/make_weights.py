#!/usr/bin/env python3
"""Makes weights_torch, weights_keras and weights_flax.safetensors: the same small model in each
framework, its weights under the framework's names, an input and the output.

Needs torch, keras, jax and flax: make_weights.py FOLDER
"""
import os
import pathlib
import sys

os.environ["KERAS_BACKEND"] = "torch"
os.environ["JAX_ENABLE_X64"] = "1"

import flax.linen as fnn
import jax
import keras
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from safetensors_file import save

T, B, V, E, H, C = 5, 3, 7, 4, 6, 3
TOKENS = np.random.default_rng(0).integers(0, V, (T, B)).astype(np.int32)


def weights_torch():
    """Two bidirectional layers, then a GRU, an RNN with relu and a projected LSTM."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(V, E)
            self.lstm = torch.nn.LSTM(E, H, num_layers=2, bidirectional=True)
            self.norm = torch.nn.LayerNorm(2 * H)
            self.gru = torch.nn.GRU(2 * H, H)
            self.rnn = torch.nn.RNN(H, H, nonlinearity="relu")
            self.attention = torch.nn.MultiheadAttention(H, 2)
            self.projected = torch.nn.LSTM(H, H, proj_size=2)
            self.cell = torch.nn.GRUCell(2, H)
            self.head = torch.nn.Linear(H, C)

        def forward(self, x):
            x = self.norm(self.lstm(self.embed(x))[0])
            x = self.rnn(self.gru(x)[0])[0]
            x = self.projected(self.attention(x, x, x)[0])[0]
            return self.head(self.cell(x[-1]))

    model = Model()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value += 0.1 * torch.randn_like(value)  # those that are 0 or 1
        y = model(torch.from_numpy(TOKENS).long()).numpy()
    return {name: value.numpy() for name, value in model.state_dict().items()}, y


def weights_keras():
    """Both forms of a GRU, and both directions of an LSTM."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    layers = keras.layers
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(V, E, name="embed")(tokens)
    x = layers.GRU(H, return_sequences=True, name="rnn_0")(x)
    x = layers.GRU(H, return_sequences=True, reset_after=False, name="rnn_1")(x)
    x = layers.Bidirectional(layers.LSTM(H, return_sequences=True), name="both")(x)
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.SimpleRNN(H, return_sequences=True, name="plain")(x)
    model = keras.Model(tokens, layers.Dense(C, name="head")(x))
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight.numpy() + 0.1 * random.standard_normal(weight.shape))
    y = model(np.ascontiguousarray(TOKENS.T)).detach().numpy().transpose(1, 0, 2)
    return {weight.path: weight.numpy() for weight in model.weights}, y


def weights_flax():
    class Model(fnn.Module):
        @fnn.compact
        def __call__(self, x):
            of = {"param_dtype": np.float64}
            x = fnn.Embed(V, E, name="embed", **of)(x)
            x = fnn.RNN(fnn.GRUCell(H, name="rnn_0", **of), time_major=True)(x)
            x = fnn.RNN(fnn.LSTMCell(H, name="rnn_1", **of), time_major=True)(x)
            x = fnn.RNN(fnn.SimpleCell(H, name="plain", **of), time_major=True)(x)
            x = fnn.LayerNorm(epsilon=1e-5, name="norm", **of)(x)
            return fnn.Dense(C, name="head", **of)(x)

    model = Model()
    weights = model.init(jax.random.PRNGKey(0), TOKENS)
    random = np.random.default_rng(2)
    weights = jax.tree_util.tree_map(
        lambda w: np.asarray(w) + 0.1 * random.standard_normal(w.shape), weights)
    return flatten_dict(weights, sep="/"), model.apply(weights, TOKENS)


def main():
    for make in (weights_torch, weights_keras, weights_flax):
        weights, y = make()
        arrays = {"weights:" + name: np.asarray(value) for name, value in weights.items()}
        arrays |= {"tokens": TOKENS, "y": np.asarray(y)}
        save(pathlib.Path(sys.argv[1]) / f"{make.__name__}.safetensors", arrays)


main()
