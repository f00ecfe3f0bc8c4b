"""PyTorch's own configurations of RNN, GRU, LSTM and their cells (ModuleInfo), in f64: outputs,
last states, and the gradients of inputs, states and every weight."""
import unittest

from reel_driver import Tally, package, run_layer
from weights import from_torch

torch = package("torch")
package("expecttest")  # which their module wants
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence  # noqa: E402
from torch.testing._internal import common_modules  # noqa: E402

TOLERANCE = 1e-10
KINDS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}


def numpy(x):
    return x.detach().numpy()


def reel_names(module, bidirectional, layers):
    """The suffix of PyTorch's names, and the prefix of Reel's, of each direction of each layer."""
    for layer in range(layers):
        for suffix, part in ([("", "forward."), ("_reverse", "backward.")] if bidirectional
                             else [("", "")]):
            cell = "" if isinstance(module, torch.nn.RNNCellBase) else f"_l{layer}{suffix}"
            yield cell, f"{layer}.{part}"


def own(named, suffix):
    """`weight_ih`, ... of one direction."""
    names = ["weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh"]
    return {name: named[name + suffix] for name in names if name + suffix in named}


class TorchModules(unittest.TestCase):
    def check(self, info, sample, tally):
        torch.manual_seed(tally.cases)
        module = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs,
                                 dtype=torch.float64)
        name = info.module_cls.__name__
        kind, cell = KINDS[name.removesuffix("Cell")], name.endswith("Cell")
        layers = 1 if cell else module.num_layers
        both = not cell and module.bidirectional
        places = list(reel_names(module, both, layers))
        args = sample.forward_input.args
        x, states = args[0], args[1] if len(args) > 1 else None
        packed = isinstance(x, PackedSequence)
        (x.data if packed else x).requires_grad_()

        # Theirs, with drawn gradients of all results.
        outcome = module(x) if states is None else module(x, states)
        y, last = (outcome[0] if kind == "lstm" and cell else outcome, outcome) if cell else outcome
        last = last if isinstance(last, tuple) else (last,)
        lengths = None
        if packed:
            y, lengths = pad_packed_sequence(y)
        d_y, d_last = torch.randn_like(y), [torch.randn_like(s) for s in last]
        loss = (y * d_y).sum() + sum((s * d).sum() for s, d in zip(last, d_last))
        loss.backward()

        # Ours: sequences are [T, B, D]; a state of PyTorch is [layers · directions, B, H].
        def sequence(a):
            a = numpy(a)
            if cell:
                return a[None, None]
            if a.ndim == 2:
                return a[:, None]
            return a if packed or not module.batch_first else a.swapaxes(0, 1)

        def by_name(tensors):
            named = {}
            for letter, tensor in zip("hc", tensors):
                a = numpy(tensor)
                a = a[None, None] if cell else a[:, None] if a.ndim == 2 else a
                for (_, ours), state in zip(places, a):
                    named[f"layers.{ours}{letter}"] = state
            return named

        weights = {key: numpy(p) for key, p in module.named_parameters()}
        params = {ours + key: value for suffix, ours in places
                  for key, value in from_torch(kind, own(weights, suffix), module.hidden_size).items()}
        starts = None if states is None else states if isinstance(states, tuple) else (states,)
        options = {"projection_size": module.proj_size} if kind == "lstm" and not cell else {}
        if kind == "rnn":
            options = {"activation": module.nonlinearity}
        upstream = {"y": sequence(d_y)}
        upstream.update({"state." + key: d for key, d in by_name(d_last).items()})
        ours = run_layer(kind, sequence(pad_packed_sequence(x)[0] if packed else x), params,
                         state=None if starts is None else by_name(starts),
                         lengths=None if lengths is None else lengths.numpy(), upstream=upstream,
                         units=module.hidden_size, layers=layers,
                         both=both, **options)

        def compare(what, theirs):
            tally.compare(self, ours[what], theirs, TOLERANCE, f"{name}, {sample}: {what}")

        compare("y", sequence(y))
        for key, state in by_name(last).items():
            compare("state." + key, state)
        if packed:
            gradient = pad_packed_sequence(PackedSequence(x.data.grad, x.batch_sizes))[0]
            compare("grad.x", sequence(gradient))
        else:
            compare("grad.x", sequence(x.grad))
        if starts is not None:
            for key, gradient in by_name([s.grad for s in starts]).items():
                compare("grad.state." + key, gradient)
        for suffix, prefix in places:
            gradients = own({k: numpy(p.grad) for k, p in module.named_parameters()}, suffix)
            for key in ["weight_ih", "weight_hh", "weight_hr"]:
                if key in gradients:
                    compare(f"grad.param.{prefix}{key.replace('weight', 'w')}", gradients[key])
            if "bias_ih" in gradients:
                compare(f"grad.param.{prefix}b", gradients["bias_ih"])
                h = module.hidden_size
                end = 2 * h if kind == "gru" else len(gradients["bias_hh"])
                tally.compare(self, ours[f"grad.param.{prefix}b"][:end], gradients["bias_hh"][:end],
                              TOLERANCE, f"{name}, {sample}: bias_hh")
                if kind == "gru":
                    compare(f"grad.param.{prefix}b_hn", gradients["bias_hh"][2 * h :])
        tally.cases += 1

    def test_all_configurations(self):
        names = {*KINDS, *(name + "Cell" for name in KINDS)}
        infos = [i for i in common_modules.module_db if i.module_cls.__name__ in names]
        self.assertEqual(len(infos), len(names))
        for info in infos:
            torch.manual_seed(0)
            packed = {} if "Cell" in info.name or "LSTM" in info.name else {
                "with_packed_sequence": True}
            tally = Tally("PyTorch " + info.module_cls.__name__)
            for sample in info.module_inputs_func(info, device="cpu", dtype=torch.float64,
                                                  requires_grad=True, training=True, **packed):
                with self.subTest(info.name, sample=tally.cases):
                    self.check(info, sample, tally)
            self.assertGreater(tally.cases, 0)
            tally.report()


if __name__ == "__main__":
    unittest.main()
