#!/usr/bin/env python3
"""PyTorch's side of the benchmark: a worker of bench/compare.py (see protocol.py).

    torch_layers.py [--compile] THREADS

With --compile a step of a layer goes through `torch.compile`, and a loop in Python runs it over the
sequence, behind one product for the inputs of all steps. Compiling a whole layer, with RNNs
allowed, takes many minutes for 64 steps.
"""
import argparse
import itertools

from protocol import Skipped, serve, skip_program

try:
    import torch
    from torch import nn
except ImportError:
    skip_program("torch_layers", "no PyTorch for this Python")

import torch_char_lm as char_lm

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


def lstm_step(p, state, w_hh, b_hh):
    h, c = state
    i, f, g, o = (p + nn.functional.linear(h, w_hh, b_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(p, state, w_hh, b_hh):
    (h,) = state
    q = nn.functional.linear(h, w_hh, b_hh)
    (p_r, p_z, p_n), (q_r, q_z, q_n) = p.chunk(3, 1), q.chunk(3, 1)
    z = (p_z + q_z).sigmoid()
    n = (p_n + (p_r + q_r).sigmoid() * q_n).tanh()
    return ((1 - z) * n + z * h,)


def rnn_step(p, state, w_hh, b_hh):
    return ((p + nn.functional.linear(state[0], w_hh, b_hh)).tanh(),)


STEPS = {"lstm": lstm_step, "gru": gru_step, "rnn": rnn_step}


class CompiledSteps(nn.Module):
    """The layers of nn.LSTM, nn.GRU or nn.RNN, with their parameters."""

    def __init__(self, kind, layers):
        super().__init__()
        self.layers = layers
        self.state_size = 2 if kind == "lstm" else 1
        self.step = torch.compile(STEPS[kind])

    def forward(self, x, state=None):
        if state is None:
            zeros = x.new_zeros(x.shape[1], self.layers.hidden_size)
            state = [(zeros,) * self.state_size] * self.layers.num_layers
        last = []
        for (w_ih, w_hh, b_ih, b_hh), now in zip(self.layers.all_weights, state):
            inputs = nn.functional.linear(x, w_ih, b_ih)
            outputs = []
            for p in inputs.unbind():
                now = self.step(p, now, w_hh, b_hh)
                outputs.append(now[0])
            x = torch.stack(outputs)
            last.append(now)
        return x, last


def make_layers(row, compiled):
    layers = LAYERS[row["kind"]](row["inputs"], row["hidden"], row["layers"])
    return CompiledSteps(row["kind"], layers) if compiled else layers


def forward(row, compiled):
    layers = make_layers(row, compiled)
    x = torch.randn(row["steps"], row["batch"], row["inputs"])

    def call():
        with torch.no_grad():
            layers(x)
    return call


def training(row, compiled):
    layers = make_layers(row, compiled)
    x = torch.randn(row["steps"], row["batch"], row["inputs"], requires_grad=True)
    seed = torch.randn(row["steps"], row["batch"], row["hidden"])
    wanted = [x, *layers.parameters()]
    return lambda: torch.autograd.grad(layers(x)[0], wanted, seed)


def packed(row, compiled):
    if compiled:
        raise Skipped("a loop in Python has no packed sequences")
    layers = make_layers(row, False)
    x = torch.randn(row["steps"], row["batch"], row["inputs"], requires_grad=True)
    seed = torch.randn(sum(row["lengths"]), row["hidden"])
    wanted = [x, *layers.parameters()]

    def call():
        batch = nn.utils.rnn.pack_padded_sequence(x, row["lengths"], enforce_sorted=False)
        torch.autograd.grad(layers(batch)[0].data, wanted, seed)
    return call


def char_lm_step(row, compiled):
    model = char_lm.CharLm(row["kind"], row["symbols"], row["inputs"], row["hidden"], row["layers"])
    if compiled:
        model.recurrent = CompiledSteps(row["kind"], model.recurrent)
    if row.get("optimizer") == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=1)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    tokens = torch.randint(row["symbols"], (100 * row["batch"] * row["steps"],))
    windows = itertools.cycle(char_lm.windows(tokens, row["batch"], row["steps"]))
    state = None

    def call():
        nonlocal state
        _, state = char_lm.train_step(model, optimizer, next(windows), state, clip=5)
    return call


def stepping(row, compiled):
    cell = CELLS[row["kind"]](row["inputs"], row["hidden"])
    if compiled:
        cell = torch.compile(cell)
    x, zeros = torch.randn(1, row["inputs"]), torch.zeros(1, row["hidden"])

    def call():
        with torch.no_grad():
            state = (zeros, zeros) if row["kind"] == "lstm" else zeros
            for _ in range(row["steps"]):
                state = cell(x, state)
    return call


def matmul(row, compiled):
    if compiled:
        raise Skipped("nothing to compile")
    a, b = torch.randn(row["m"], row["k"]), torch.randn(row["k"], row["n"])
    c = torch.empty(row["m"], row["n"])
    return lambda: torch.mm(a, b, out=c)


def in_precision(row, call):
    if "precision" not in row:
        return call

    def rounded():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            call()
    return rounded


WORK = {"forward": forward, "training": training, "packed": packed, "char_lm": char_lm_step,
        "stepping": stepping, "matmul": matmul}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("threads", type=char_lm.positive)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if args.compile and not hasattr(torch, "compile"):
        skip_program("torch_layers", f"PyTorch {torch.__version__} has no torch.compile")
    torch.manual_seed(1)
    blas = char_lm.set_threads(args.threads)
    serve({"peer": "torch.compile" if args.compile else "PyTorch", "version": torch.__version__,
           "detail": blas},
          lambda row: in_precision(row, WORK[row["work"]](row, args.compile)),
          torch._dynamo.reset if args.compile else lambda: None)


if __name__ == "__main__":
    main()
