#!/usr/bin/env python3
"""Writes the golden values that the tests compare with: what PyTorch computes, in f64.

    python3 tests/golden/make_golden.py [--out DIR] [FILE ...]      (with PyTorch)

Every input is drawn by numpy's RandomState, whose stream never changes. Weights are [out, in],
gates stacked along rows (LSTM i, f, g, o; GRU r, z, n); sequences are [T, B, F].

layers.safetensors: T=5, B=3, D=4, H=5, two layers. Keys are `<kind>.<directions>.<what>` with kind
rnn (tanh), gru or lstm, directions uni or bi:
    x, h0, c0                    input [T, B, D], initial states [layers * directions, B, H],
                                 layer by layer, in each the forward direction, then the reverse
    param.weight_ih_l0 ...       PyTorch's parameters under its own names (_l1, _reverse); it has
                                 two biases per gate, bias_ih_l0 and bias_hh_l0
    y, h_n, c_n                  output [T, B, directions * H], final states like h0
    cotangent.{y,h_n,c_n}        loss = sum(cotangent.y * y) + the same for the final states
    loss                         []
    grad.<x, h0, c0, weight_ih_l0 ...>   gradient of that loss
c0, c_n exist for lstm only. `gru_before.uni` is the GRU of the paper, one layer, with the reset
before the product: n = tanh(W x + b + U (r * h)); its parameters are param.weight_ih [3H, D],
param.weight_hh [3H, H] and one param.bias [3H].

packed.safetensors: T=5, B=4, D=3, H=4, two layers in both directions over a batch packed by
pack_padded_sequence(enforce_sorted=False). Keys as above, `<kind>.<what>`, and
    lengths                      I32 [B]; y and grad.x are zero from a row's length on
Kinds: rnn, rnn_relu, gru, lstm; the same with _plain, without biases, h0 and c0; lstm_projection,
whose h has P=2 units: h' = W_hr (o * tanh(c')), with param.weight_hr_l0 ... [P, H].

attention.safetensors: MultiheadAttention of 2 heads, size 6; memory of T=5 steps, B=3, of lengths
5, 2, 3. Keys are `<case>.<what>` with the cases cross, causal, sizes and plain:
    query, key, value            [Q, B, 6], [T, B, key size], [T, B, value size]; causal and plain
                                 have x [T, B, 6] instead; in sizes key and value size are 5 and 7
    param.in_proj_weight ...     PyTorch's parameters; in sizes q_proj_weight, k_proj_weight and
                                 v_proj_weight; plain has no biases
    lengths, mask                I32 [B], [Q, B, T], 1 where a query may attend; mask in sizes only
    context, weights             [Q, B, 6], [B, Q, T]; in sizes [B, heads, Q, T]
    cotangent..., loss, grad...  as above; the padding of x, key and value has gradients of 0

adam_lm.safetensors: a language model trained for 10 windows. Vocabulary 11, embedding 6, LSTM of
2 layers, H=8, linear with bias; T=7, B=4; loss = mean cross entropy; gradients clipped to the
global norm 0.23 as PyTorch does it (scale = min(1, 0.23 / (norm + 1e-6))); Adam(lr 2e-3, betas 0.9
0.999, eps 1e-8). The state is zero first, then carried and detached. bias_hh is zero and not
trained, so there is one bias per gate and bias_hh is not stored.
    inputs, targets              I32 [10, T, B], window after window
    initial.<name>, final.<name> embedding.weight, lstm.{weight_ih,weight_hh,bias_ih}_l{0,1},
                                 linear.{weight,bias}
    losses, grad_norms           [10], the norms before clipping
    final.h, final.c             [2, B, H], the state after the last window

ctc.safetensors: ctc_loss with reduction mean and sum. T=9, B=5, S=4, V=6, blank 2. Keys are
    logits                       [T, B, V], before log_softmax
    targets                      I32 [S, B], with -1 in the padding, one of them empty
    lengths, target_lengths      I32 [B], of logits and targets
    {mean,sum}.loss, {mean,sum}.grad      [], and the gradient of the logits

adaptive_softmax.safetensors: AdaptiveLogSoftmaxWithLoss(12, 20, cutoffs=[4, 9, 15], div_value=2)
for 10 rows, `plain` and with `head_bias`. Keys `<which>.<what>`:
    x, targets, log_prob, predict       [10, 12], I32 [10], [10, 20], I32 [10]
    param.<name>, loss, grad.<x, name>  PyTorch's names, head.weight, tail.0.0.weight ...; the mean

optim.safetensors is written by make_golden_optim.py.
"""
import argparse
import math
import pathlib

import numpy as np
import torch

import safetensors_file

T, B, D, H, LAYERS = 5, 3, 4, 5, 2

class Random:
    """Reproducible draws as f64 tensors."""

    def __init__(self, seed):
        self.state = np.random.RandomState(seed)

    def normal(self, *shape):
        return torch.from_numpy(self.state.standard_normal(shape))

    def uniform(self, bound, *shape):
        return torch.from_numpy(self.state.uniform(-bound, bound, shape))

    def tokens(self, count, *shape):
        return torch.from_numpy(self.state.randint(0, count, shape))


def save(path, tensors, **metadata):
    arrays = {name: torch.as_tensor(value).detach().numpy() for name, value in tensors.items()}
    safetensors_file.save(path, arrays, torch=torch.__version__, **metadata)


def with_gradients(random, prefix, inputs, parameters, outputs):
    """What to store for one layer, including the gradient of a random projection of its outputs."""
    cotangents = {name: random.normal(*value.shape) for name, value in outputs.items()}
    loss = sum((cotangents[name] * value).sum() for name, value in outputs.items())
    sources = {**inputs, **parameters}
    gradients = torch.autograd.grad(loss, list(sources.values()))
    tensors = {**inputs, **outputs, "loss": loss}
    tensors.update({f"param.{name}": value for name, value in parameters.items()})
    tensors.update({f"cotangent.{name}": value for name, value in cotangents.items()})
    tensors.update({f"grad.{name}": value for name, value in zip(sources, gradients)})
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def torch_layer(kind, bidirectional, seed):
    random = Random(seed)
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    layer = layer(D, H, LAYERS, bidirectional=bidirectional, dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    for value in parameters.values():
        value.data = random.uniform(1 / math.sqrt(H), *value.shape)

    state_shape = LAYERS * (1 + bidirectional), B, H
    states = ["h0", "c0"] if kind == "lstm" else ["h0"]
    inputs = {"x": random.normal(T, B, D).requires_grad_()}
    inputs.update({name: random.normal(*state_shape).requires_grad_() for name in states})
    if kind == "lstm":
        y, (h_n, c_n) = layer(inputs["x"], (inputs["h0"], inputs["c0"]))
        outputs = {"y": y, "h_n": h_n, "c_n": c_n}
    else:
        y, h_n = layer(inputs["x"], inputs["h0"])
        outputs = {"y": y, "h_n": h_n}
    prefix = f"{kind}.{'bi' if bidirectional else 'uni'}"
    return with_gradients(random, prefix, inputs, parameters, outputs)


def packed_layer(name, seed, with_more=True, projection=0):
    """Two layers in both directions over a packed batch; `with_more`: biases and first states."""
    steps, batch, features, hidden = 5, 4, 3, 4
    lengths = [3, 5, 1, 3]
    random = Random(seed)
    kind = name.partition("_")[0]
    layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[kind]
    options = {"proj_size": projection} if projection else {}
    if name.startswith("rnn_relu"):
        options["nonlinearity"] = "relu"
    layer = layer(features, hidden, LAYERS, bias=with_more, bidirectional=True,
                  dtype=torch.float64, **options)
    parameters = dict(layer.named_parameters())
    for value in parameters.values():
        value.data = random.uniform(1 / math.sqrt(hidden), *value.shape)

    inputs = {"x": random.normal(steps, batch, features).requires_grad_()}
    if with_more:
        sizes = {"h0": projection or hidden, **({"c0": hidden} if kind == "lstm" else {})}
        inputs.update({key: random.normal(2 * LAYERS, batch, size).requires_grad_()
                       for key, size in sizes.items()})
    states = tuple(inputs.values())[1:]
    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs["x"], lengths, enforce_sorted=False)
    packed, last = layer(packed, (states if kind == "lstm" else states[0]) if states else None)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, total_length=steps)
    outputs = {"y": y, **dict(zip(["h_n", "c_n"], last if kind == "lstm" else [last]))}
    tensors = with_gradients(random, name, inputs, parameters, outputs)
    return {**tensors, f"{name}.lengths": torch.tensor(lengths, dtype=torch.int32)}


def packed_layers():
    tensors = packed_layer("lstm_projection", 20, projection=2)
    for seed, kind in enumerate(["rnn", "rnn_relu", "gru", "lstm"], start=21):
        tensors.update(packed_layer(kind, seed))
        tensors.update(packed_layer(f"{kind}_plain", seed + 10, with_more=False))
    return tensors


def gru_reset_before(seed):
    random = Random(seed)
    bound = 1 / math.sqrt(H)
    shapes = {"weight_ih": (3 * H, D), "weight_hh": (3 * H, H), "bias": (3 * H,)}
    parameters = {name: random.uniform(bound, *shape).requires_grad_()
                  for name, shape in shapes.items()}
    inputs = {"x": random.normal(T, B, D).requires_grad_(),
              "h0": random.normal(1, B, H).requires_grad_()}

    u_r, u_z, u_n = parameters["weight_hh"].chunk(3)
    h, ys = inputs["h0"][0], []
    for x_t in inputs["x"]:
        a_r, a_z, a_n = (x_t @ parameters["weight_ih"].T + parameters["bias"]).chunk(3, dim=1)
        r = torch.sigmoid(a_r + h @ u_r.T)
        z = torch.sigmoid(a_z + h @ u_z.T)
        n = torch.tanh(a_n + (r * h) @ u_n.T)
        h = (1 - z) * n + z * h
        ys.append(h)
    outputs = {"y": torch.stack(ys), "h_n": h[None]}
    return with_gradients(random, "gru_before.uni", inputs, parameters, outputs)


def layers():
    tensors = gru_reset_before(seed=7)
    for seed, kind in enumerate(["rnn", "gru", "lstm"]):
        for bidirectional in [False, True]:
            tensors.update(torch_layer(kind, bidirectional, seed=2 * seed + bidirectional))
    return tensors


def attention_case(name, seed, bias=True, sizes=None):
    size, heads, steps, lengths = 6, 2, 5, [5, 2, 3]
    rows, random = len(lengths), Random(seed)
    itself, causal = name in ("causal", "plain"), name == "causal"
    attention = torch.nn.MultiheadAttention(
        size, heads, bias=bias, dtype=torch.float64,
        **(dict(zip(["kdim", "vdim"], sizes)) if sizes else {}))
    parameters = dict(attention.named_parameters())
    for value in parameters.values():
        value.data = random.normal(*value.shape) / 2
    key_size, value_size = sizes or (size, size)
    if itself:
        inputs = {"x": random.normal(steps, rows, size).requires_grad_()}
        q = k = v = inputs["x"]
    else:
        q, k, v = random.normal(4, rows, size), random.normal(steps, rows, key_size), \
            random.normal(steps, rows, value_size)
        inputs = {key: x.requires_grad_() for key, x in zip(["query", "key", "value"], (q, k, v))}
    padding = torch.arange(steps) >= torch.tensor(lengths)[:, None]
    more, hidden = {"lengths": torch.tensor(lengths, dtype=torch.int32)}, None
    if causal:
        hidden = torch.ones(steps, steps, dtype=torch.bool).triu(1)
    if sizes:
        visible = random.tokens(2, len(q), rows, steps).bool()
        visible[..., 0] = True
        more["mask"] = visible.int()
        hidden = ~visible.transpose(0, 1).repeat_interleave(heads, 0)  # [rows * heads, Q, T]
    context, weights = attention(q, k, v, key_padding_mask=padding, attn_mask=hidden,
                                 average_attn_weights=not sizes)
    tensors = with_gradients(random, name, inputs, parameters,
                             {"context": context, "weights": weights})
    return {**tensors, **{f"{name}.{key}": value for key, value in more.items()}}


def attention():
    return {**attention_case("cross", 41), **attention_case("causal", 42),
            **attention_case("sizes", 43, sizes=(5, 7)), **attention_case("plain", 44, bias=False)}


def language_model():
    vocabulary, embed, hidden, seq_len, batch, steps, clip = 11, 6, 8, 7, 4, 10, 0.23
    random = Random(11)
    model = torch.nn.ModuleDict({
        "embedding": torch.nn.Embedding(vocabulary, embed, dtype=torch.float64),
        "lstm": torch.nn.LSTM(embed, hidden, LAYERS, dtype=torch.float64),
        "linear": torch.nn.Linear(hidden, vocabulary, dtype=torch.float64),
    })
    trained = {}
    for name, value in model.named_parameters():
        if "bias_hh" in name:
            value.data.zero_()
            value.requires_grad_(False)
            continue
        is_embedding = name.startswith("embedding")
        value.data = (random.normal(*value.shape) if is_embedding
                      else random.uniform(1 / math.sqrt(hidden), *value.shape))
        if "bias_ih" in name:
            value.data[hidden : 2 * hidden] = 1
        trained[name] = value
    tensors = {f"initial.{name}": value.detach().clone() for name, value in trained.items()}

    stream = random.tokens(vocabulary, steps * seq_len + 1, batch)
    inputs = stream[:-1].view(steps, seq_len, batch)
    targets = stream[1:].view(steps, seq_len, batch)
    optimizer = torch.optim.Adam(trained.values(), lr=2e-3)
    state, losses, norms = None, [], []
    for window, target in zip(inputs, targets):
        optimizer.zero_grad()
        y, state = model["lstm"](model["embedding"](window), state)
        logits = model["linear"](y)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), clip))
        optimizer.step()
        losses.append(loss.detach())
        state = tuple(s.detach() for s in state)

    tensors.update({f"final.{name}": value for name, value in trained.items()})
    tensors.update({"inputs": inputs.int(), "targets": targets.int(),
                    "losses": torch.stack(losses), "grad_norms": torch.stack(norms),
                    "final.h": state[0], "final.c": state[1]})
    return tensors


def ctc():
    steps, batch, symbols, most, blank = 9, 5, 6, 4, 2
    random = Random(41)
    logits = random.normal(steps, batch, symbols).requires_grad_()
    labels = random.tokens(symbols - 1, most, batch)
    labels += labels >= blank
    lengths, target_lengths = torch.tensor([9, 7, 5, 8, 1]), torch.tensor([4, 2, 0, 3, 1])
    labels[1, 0] = labels[0, 0]
    targets = torch.where(torch.arange(most)[:, None] < target_lengths, labels, -1)
    tensors = {"logits": logits, "targets": targets.int(), "lengths": lengths.int(),
               "target_lengths": target_lengths.int()}
    for reduction in ["mean", "sum"]:
        loss = torch.nn.functional.ctc_loss(logits.log_softmax(-1), labels.T, lengths,
                                            target_lengths, blank, reduction)
        tensors[f"{reduction}.loss"] = loss
        tensors[f"{reduction}.grad"], = torch.autograd.grad(loss, logits)
    return tensors


def adaptive_softmax():
    tensors = {}
    for seed, head_bias in enumerate([False, True]):
        random = Random(seed)
        layer = torch.nn.AdaptiveLogSoftmaxWithLoss(12, 20, cutoffs=[4, 9, 15], div_value=2,
                                                    head_bias=head_bias, dtype=torch.float64)
        parameters = dict(layer.named_parameters())
        for parameter in parameters.values():
            parameter.data = random.normal(*parameter.shape)
        x = random.normal(10, 12).requires_grad_()
        targets = torch.tensor([0, 5, 12, 19, 3, 9, 15, 4, 8, 14])
        loss = layer(x, targets).loss
        gradients = torch.autograd.grad(loss, [x, *parameters.values()])
        which = {"x": x, "targets": targets.int(), "log_prob": layer.log_prob(x),
                 "predict": layer.predict(x).int(), "loss": loss}
        which.update({f"param.{name}": value for name, value in parameters.items()})
        which.update({f"grad.{name}": value for name, value in zip(["x", *parameters], gradients)})
        name = "head_bias" if head_bias else "plain"
        tensors.update({f"{name}.{key}": value for key, value in which.items()})
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent,
                        help="directory to write to (default: that of this script)")
    files = {"layers": (layers, {}), "packed": (packed_layers, {}),
             "attention": (attention, {}), "ctc": (ctc, {}),
             "adaptive_softmax": (adaptive_softmax, {}),
             "adam_lm": (language_model, {"clip": "0.23", "lr": "0.002"})}
    parser.add_argument("files", nargs="*", metavar="FILE", help="only these: " + ", ".join(files))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.files or files:
        make, metadata = files[name]
        save(args.out / f"{name}.safetensors", make(), **metadata)


if __name__ == "__main__":
    main()
