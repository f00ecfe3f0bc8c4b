"""Lets Reel compute the recurrent layers of Keras, with its backend torch: forward, and backward as
a function of PyTorch's autograd. What a layer of Keras does around its steps stays Keras's."""
import contextlib
import random
from unittest import mock

import torch
from keras.src import layers, ops
from keras.src.layers.rnn.rnn import RNN
from keras.src.layers.rnn.stacked_rnn_cells import StackedRNNCells

from reel_driver import np, run
from weights import from_keras

MERGES = {"concat": "concat", "sum": "sum", "ave": "mean"}


class Counts:
    """The layers that Reel and that Keras computed."""

    def __init__(self):
        self.reel = self.keras = 0

    def add(self, other):
        self.reel, self.keras = self.reel + other.reel, self.keras + other.keras


class Answer(torch.autograd.Function):
    """The driver's answer to a task, as a function of the named tensors."""

    @staticmethod
    def forward(ctx, task, lengths, names, wanted, *tensors):
        ctx.call = task, lengths, names, wanted
        ctx.save_for_backward(*tensors)
        answer = run(task, Answer.request(ctx.call, tensors))
        return tuple(torch.tensor(np.array(answer[name])) for name in wanted)

    @staticmethod
    def request(call, tensors):
        _, lengths, names, _ = call
        request = {name: t.detach().numpy() for name, t in zip(names, tensors)}
        return request if lengths is None else {**request, "lengths": lengths}

    @staticmethod
    def backward(ctx, *gradients):
        task, _, names, wanted = ctx.call
        request = Answer.request(ctx.call, ctx.saved_tensors)
        request.update({f"upstream.{name}": g.numpy() for name, g in zip(wanted, gradients)})
        answer = run(task, request)
        return None, None, None, None, *(torch.tensor(np.array(answer[f"grad.{name}"]))
                                         for name in names)


def ask(task, x, params, states, lengths, new_states):
    """y and the new states by their names, given tensors [T, B, ..]."""
    tensors = {"x": x, **{f"param.{name}": p for name, p in params.items()},
               **{f"state.{name}": s for name, s in states.items()}}
    wanted = ["y", *(f"state.{name}" for name in new_states)]
    y, *last = Answer.apply({"input_size": x.shape[-1], **task}, lengths, list(tensors), wanted,
                            *(t.float() for t in tensors.values()))
    return y, last


def described(cell, training):
    """The driver's task for a cell of Keras or of its tests, or None."""
    def is_usual():
        return (cell.activation.__name__, cell.recurrent_activation.__name__) == ("tanh", "sigmoid")

    task = {"OneStateRNNCell": {"kind": "linear_cell"},
            "TwoStatesRNNCell": {"kind": "two_states_cell"}}.get(type(cell).__name__)
    if isinstance(cell, layers.SimpleRNNCell) and cell.activation.__name__ in ("tanh", "relu"):
        task = {"kind": "rnn", "activation": cell.activation.__name__}
    elif isinstance(cell, layers.GRUCell) and is_usual():
        task = {"kind": "gru", "reset": "after" if cell.reset_after else "before"}
    elif isinstance(cell, layers.LSTMCell) and is_usual():
        task = {"kind": "lstm"}
    if task is None:
        return None
    dropped = {"input_dropout": getattr(cell, "dropout", 0),
               "hidden_dropout": getattr(cell, "recurrent_dropout", 0)}
    if training and any(dropped.values()):
        task.update(dropped, seed=random.randrange(1 << 30))
    return {**task, "units": cell.units}


def parameters(cell, kind):
    if kind == "linear_cell":
        return {"w_ih": cell.kernel.value.T, "w_hh": cell.recurrent_kernel.value.T}
    if kind == "two_states_cell":
        return {"w_ih": cell.kernel.value.T, "w_hh": cell.recurrent_kernel_1.value.T,
                "w_hc": cell.recurrent_kernel_2.value.T}
    bias = None if cell.bias is None else cell.bias.value.float()
    return from_keras(kind, cell.kernel.value.float(), cell.recurrent_kernel.value.float(), bias)


def letters(kind):
    return "hc" if kind in ("lstm", "two_states_cell") else "h"


class Masked:
    """Any mask [B, T] as lengths: the steps that count are moved to the front."""

    def __init__(self, mask):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        self.mask = None if mask is None else torch.as_tensor(np.array(mask)).bool()
        if self.mask is not None:
            self.mask = self.mask.reshape(self.mask.shape[:2])
        self.lengths = None if mask is None else self.mask.sum(1).int().numpy()

    def front(self, x):
        if self.mask is None:
            return x
        order = torch.argsort((~self.mask).int(), dim=1, stable=True)
        return torch.gather(x, 1, order[..., None].expand_as(x))

    def back(self, y, reverse, zero_output):
        """Each step's output; where the mask is false that of the step that was run before it, or
        zeros."""
        if self.mask is None:
            return y
        count, steps = self.mask.cumsum(1), self.mask.shape[1]
        index = torch.where(self.mask | (not reverse), count - 1, count)
        none = (index < 0) | (index >= count[:, -1:])
        if zero_output:
            none = none | ~self.mask
        index = torch.where(none, steps, index)
        padded = torch.cat([y, torch.zeros_like(y[:, :1])], 1)
        return torch.gather(padded, 1, index[..., None].expand(-1, -1, y.shape[-1]))


def symbolic(x):
    """Whether Keras only asks for a shape."""
    return not isinstance(x, torch.Tensor) or x.device.type == "meta"


def inner_loop(original, counts):
    def by_reel(self, sequences, initial_state, mask, training=False):
        if symbolic(sequences):
            return original(self, sequences, initial_state, mask, training=training)
        stacked = isinstance(self.cell, StackedRNNCells)
        cells = self.cell.cells if stacked else [self.cell]
        tasks = [described(cell, training) for cell in cells]
        if None in tasks:
            counts.keras += 1
            return original(self, sequences, initial_state, mask, training=training)
        counts.reel += 1
        masked = Masked(mask)
        x, ends = masked.front(sequences.float()).transpose(0, 1), []
        for cell, task, start in zip(cells, tasks, initial_state if stacked else [initial_state]):
            nested = isinstance(start, (list, tuple))
            names = [f"layers.0.{letter}" for letter in letters(task["kind"])]
            params = {f"0.{name}": p for name, p in parameters(cell, task["kind"]).items()}
            x, last = ask({**task, "reverse": self.go_backwards}, x, params,
                          dict(zip(names, start if nested else [start])), masked.lengths, names)
            ends.append(last if nested else last[0])
        outputs = masked.back(x.transpose(0, 1), self.go_backwards, self.zero_output_for_mask)
        if self.go_backwards:
            outputs = outputs.flip(1)
        return outputs[:, -1], outputs, ends if stacked else ends[0]
    return by_reel


def merged(mode, y, y_rev):
    return {"concat": lambda: ops.concatenate([y, y_rev], axis=-1), "sum": lambda: y + y_rev,
            "ave": lambda: (y + y_rev) / 2, "mul": lambda: y * y_rev,
            None: lambda: (y, y_rev)}[mode]()


def bidirectional(original, counts):
    def by_reel(self, sequences, initial_state=None, mask=None, training=None):
        forward, backward = self.forward_layer, self.backward_layer
        tasks = [described(layer.cell, training) if hasattr(layer, "cell") else None
                 for layer in (forward, backward)]
        if (symbolic(sequences) or None in tasks or tasks[0] != tasks[1] or self.stateful
                or forward.go_backwards or not backward.go_backwards or "seed" in tasks[0]):
            return original(self, sequences, initial_state=initial_state, mask=mask,
                            training=training)
        counts.reel += 1
        kind, masked = tasks[0]["kind"], Masked(mask)
        places = [f"0.{way}." for way in ("forward", "backward")]
        names = [f"layers.{place}{letter}" for place in places for letter in letters(kind)]
        params = {place + name: p for place, layer in zip(places, (forward, backward))
                  for name, p in parameters(layer.cell, kind).items()}
        # Where all steps count Reel joins the outputs.
        joins = self.return_sequences and mask is None and self.merge_mode in MERGES
        y, last = ask({**tasks[0], "both": True, "merge": MERGES[self.merge_mode] if joins else
                       "concat"}, masked.front(sequences.float()).transpose(0, 1), params,
                      {} if initial_state is None else dict(zip(names, initial_state)),
                      masked.lengths, names)
        output = y.transpose(0, 1)
        if not joins:
            there, back = (masked.back(half, reverse, layer.zero_output_for_mask)
                           for half, reverse, layer in zip(output.chunk(2, -1), (False, True),
                                                           (forward, backward)))
            if not self.return_sequences:
                there, back = there[:, -1], back[:, 0]
            output = merged(self.merge_mode, there, back)
        output = (output if isinstance(output, tuple) else (output,))
        output = tuple(ops.cast(part, self.compute_dtype) for part in output)
        if self.return_state:
            return output + tuple(last)
        return output if self.merge_mode is None else output[0]
    return by_reel


def dense(original, counts):
    def by_reel(self, inputs, training=None):
        if symbolic(inputs) or inputs.ndim < 2:
            return original(self, inputs, training=training)
        counts.reel += 1
        kernel = self.kernel if isinstance(self.kernel, torch.Tensor) else self.kernel.value
        bias = 0 * kernel[0] if self.bias is None else self.bias.value
        y, _ = ask({"kind": "linear", "units": kernel.shape[1]}, inputs,
                   {"w": kernel.T, "b": bias}, {}, None, [])
        y = ops.cast(y, self.compute_dtype)
        return y if self.activation is None else self.activation(y)
    return by_reel


@contextlib.contextmanager
def replaced(counts):
    with contextlib.ExitStack() as stack:
        for owner, method, made in [(RNN, "inner_loop", inner_loop),
                                    (layers.GRU, "inner_loop", inner_loop),
                                    (layers.LSTM, "inner_loop", inner_loop),
                                    (layers.Bidirectional, "call", bidirectional),
                                    (layers.Dense, "call", dense)]:
            stack.enter_context(
                mock.patch.object(owner, method, made(getattr(owner, method), counts)))
        yield
