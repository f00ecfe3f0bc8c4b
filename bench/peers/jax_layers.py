#!/usr/bin/env python3
"""JAX's side of the benchmark: a worker of bench/compare.py (see protocol.py).

    jax_layers.py THREADS

Everything is one jitted function; layers run over the sequence with `lax.scan`, behind one product
for the inputs of all steps.
"""
import argparse
import os

from protocol import Skipped, serve, skip_program

GATES = {"rnn": 1, "gru": 3, "lstm": 4}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("threads", type=int)
threads = parser.parse_args().threads
# Read when JAX loads: the size of XLA's thread pool.
os.environ["NPROC"] = str(threads)
os.environ["JAX_PLATFORMS"] = "cpu"

try:
    import jax
    from jax import lax, nn, numpy as jnp
except ImportError:
    skip_program("jax_layers", "no JAX for this Python")


def lstm_step(state, p, w_hh, b_hh):
    h, c = state
    i, f, g, o = jnp.split(p + h @ w_hh + b_hh, 4, axis=1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def gru_step(state, p, w_hh, b_hh):
    (h,) = state
    p_r, p_z, p_n = jnp.split(p, 3, axis=1)
    q_r, q_z, q_n = jnp.split(h @ w_hh + b_hh, 3, axis=1)
    z = nn.sigmoid(p_z + q_z)
    return ((1 - z) * jnp.tanh(p_n + nn.sigmoid(p_r + q_r) * q_n) + z * h,)


def rnn_step(state, p, w_hh, b_hh):
    return (jnp.tanh(p + state[0] @ w_hh + b_hh),)


STEPS = {"lstm": lstm_step, "gru": gru_step, "rnn": rnn_step}


class Random:
    """Normal numbers from a stream."""

    def __init__(self):
        self.key = jax.random.key(1)

    def __call__(self, *shape):
        self.key, key = jax.random.split(self.key)
        return jax.random.normal(key, shape)


def layer_weights(row, random):
    size, width = row["inputs"], GATES[row["kind"]] * row["hidden"]
    weights = []
    for _ in range(row["layers"]):
        scale = row["hidden"] ** -0.5
        weights.append([scale * random(size, width), scale * random(row["hidden"], width),
                        scale * random(width), scale * random(width)])
        size = row["hidden"]
    return weights


def zero_state(row):
    parts = 2 if row["kind"] == "lstm" else 1
    return (jnp.zeros((row["batch"], row["hidden"])),) * parts


def run_layers(kind, weights, x, states):
    """The outputs [T, B, H] and the last states."""
    last = []
    for (w_ih, w_hh, b_ih, b_hh), state in zip(weights, states):
        def step(state, p, w_hh=w_hh, b_hh=b_hh):
            state = STEPS[kind](state, p, w_hh, b_hh)
            return state, state[0]
        state, x = lax.scan(step, state, x @ w_ih + b_ih)
        last.append(state)
    return x, last


def layers_over_zeros(row):
    states = [zero_state(row)] * row["layers"]
    return lambda weights, x: run_layers(row["kind"], weights, x, states)[0]


def forward(row):
    random = Random()
    weights = layer_weights(row, random)
    x = random(row["steps"], row["batch"], row["inputs"])
    return jax.jit(layers_over_zeros(row)), weights, x


def training(row):
    layers = layers_over_zeros(row)
    random = Random()
    weights = layer_weights(row, random)
    x = random(row["steps"], row["batch"], row["inputs"])
    seed = random(row["steps"], row["batch"], row["hidden"])

    def gradients(weights, x, seed):
        return jax.vjp(layers, weights, x)[1](seed)
    return jax.jit(gradients), weights, x, seed


def matmul(row):
    random = Random()
    return jax.jit(jnp.matmul), random(row["m"], row["k"]), random(row["k"], row["n"])


def repeated(function, *arguments):
    return lambda: jax.block_until_ready(function(*arguments))


def adam(weights, gradients, moments, step):
    m, v = moments
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, gradients)
    rate = 2e-3 * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    weights = jax.tree.map(lambda w, a, b: w - rate * a / (jnp.sqrt(b) + 1e-8), weights, m, v)
    return weights, (m, v)


def char_lm(row):
    symbols, hidden = row["symbols"], row["hidden"]
    random = Random()
    weights = {"embed": random(symbols, row["inputs"]), "layers": layer_weights(row, random),
               "w": hidden ** -0.5 * random(hidden, symbols), "b": jnp.zeros(symbols)}

    def loss(weights, inputs, targets, states):
        y, states = run_layers(row["kind"], weights["layers"], weights["embed"][inputs], states)
        chances = nn.log_softmax(y @ weights["w"] + weights["b"])
        chosen = jnp.take_along_axis(chances, targets[..., None], axis=-1)
        return -chosen.mean(), states

    def train_step(model, inputs, targets):
        weights, moments, states, step = model
        (value, states), gradients = jax.value_and_grad(loss, has_aux=True)(
            weights, inputs, targets, states)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
        gradients = jax.tree.map(lambda g: g * jnp.minimum(1, 5 / norm), gradients)
        weights, moments = adam(weights, gradients, moments, step)
        return (weights, moments, states, step + 1), value

    zeros = jax.tree.map(jnp.zeros_like, weights)
    model = (weights, (zeros, zeros), [zero_state(row)] * row["layers"], 1.0)
    model = jax.tree.map(jnp.copy, model)  # each array apart: the step writes into all of them
    tokens = jax.random.randint(jax.random.key(2), (row["steps"] + 1, row["batch"]), 0, symbols)
    compiled = jax.jit(train_step, donate_argnums=0)

    def call():
        nonlocal model
        model, value = compiled(model, tokens[:-1], tokens[1:])
        value.block_until_ready()
    return call


def stepping(row):
    random = Random()
    (w_ih, w_hh, b_ih, b_hh), = layer_weights(row, random)
    x = random(1, row["inputs"])
    step = jax.jit(lambda x, state: STEPS[row["kind"]](state, x @ w_ih + b_ih, w_hh, b_hh))

    def call():
        state = zero_state(row)
        for _ in range(row["steps"]):
            state = step(x, state)
        jax.block_until_ready(state)
    return call


REPEATED = {"forward": forward, "training": training, "matmul": matmul}
WORK = {"char_lm": char_lm, "stepping": stepping}


def prepare(row):
    work = row["work"]
    if work not in WORK and work not in REPEATED:
        raise Skipped("not for this worker")
    return WORK[work](row) if work in WORK else repeated(*REPEATED[work](row))


serve({"peer": "JAX", "version": jax.__version__, "detail": "jit and lax.scan"}, prepare,
      jax.clear_caches)
