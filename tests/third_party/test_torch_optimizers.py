"""Optimizers step by step beside torch.optim, with the configurations of PyTorch's own tests
(common_optimizers.py), in f64 and from the same drawn gradients."""
import unittest
from unittest import mock

from reel_driver import Tally, np, package, run

torch = package("torch")
package("expecttest")  # which their module wants
from torch.testing._internal import common_optimizers  # noqa: E402

TOLERANCE = 1e-12
STEPS = 10
SHAPES = {"w": (5, 4), "b": (6,)}

NAMES = {"SGD": "sgd", "Adam": "adam", "AdamW": "adamw", "RMSprop": "rmsprop",
         "Adagrad": "adagrad", "Adadelta": "adadelta", "NAdam": "nadam", "RAdam": "radam",
         "Adamax": "adamax", "Muon": "muon", "SparseAdam": "adam",
         "Adafactor": "adafactor", "ASGD": "asgd", "Rprop": "rprop", "LBFGS": "lbfgs"}
OPTIONS = {"lr": "learning_rate", "eps": "epsilon", "lr_decay": "learning_rate_decay",
           "initial_accumulator_value": "initial_sum", "decoupled_weight_decay": "decoupled",
           "ns_steps": "iterations", "lambd": "decay", "t0": "start", "d": "threshold",
           "tolerance_grad": "least_gradient"}
SAME = {"momentum", "dampening", "nesterov", "weight_decay", "amsgrad", "centered", "alpha", "rho",
        "momentum_decay", "maximize", "beta2_decay"}
PAIRS = {"betas": ("beta1", "beta2"), "etas": ("shrink", "grow"),
         "step_sizes": ("least_step", "greatest_step")}


def number(x):
    return x.item() if isinstance(x, torch.Tensor) else x


def given_in_f64(optimizer, kwargs):
    """The settings that change numbers; those in tensors of f32 as the same numbers in f64."""
    given = {name: tuple(map(in_f64, x)) if isinstance(x, tuple) else in_f64(x)
             for name, x in kwargs.items() if name != "capturable"}
    # SparseAdam adds epsilon before it corrects the bias of the second moment, Adam afterwards.
    return {**given, "eps": 1e-150} if optimizer == "SparseAdam" else given


def in_f64(x):
    return x.double() if isinstance(x, torch.Tensor) else x


def task_of(optimizer, given):
    """What the driver is asked for; None if Reel has no such optimizer or option."""
    if optimizer not in NAMES:
        return None
    task = {"kind": "optimizer", "optimizer": NAMES[optimizer], "steps": STEPS}
    if optimizer == "SparseAdam":
        task["lazy_rows"] = True
    if optimizer == "LBFGS":
        search = given.pop("line_search_fn", None)
        task["line_search"] = {None: False, "strong_wolfe": True}[search]
    for name, value in given.items():
        if name in PAIRS:
            task.update(zip(PAIRS[name], map(number, value)))
        elif name == "ns_coefficients":
            task["coefficients"] = value
        elif name in OPTIONS or name in SAME:
            task[OPTIONS.get(name, name)] = number(value)
        else:
            return None
    return task


def trajectory(optimizer, given, start, data):
    """PyTorch's parameters after each step."""
    params = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start.items()}
    made = getattr(torch.optim, optimizer)(params.values(), **given)
    steps = {}
    for step in range(STEPS):
        for name, p in params.items():
            if optimizer == "LBFGS":
                break  # which asks for losses
            p.grad = torch.tensor(data[f"g.{step}.{name}"])
            if optimizer == "SparseAdam":
                p.grad = p.grad.to_sparse(1)
        # Muon rounds its matrices to bf16, which Reel does not.
        with mock.patch.object(torch.Tensor, "bfloat16", lambda self: self.clone()):
            made.step(*[lambda: loss_of(made, params, data)] * (optimizer == "LBFGS"))
        steps.update({f"p.{step}.{name}": p.detach().numpy().copy() for name, p in params.items()})
    return steps


def loss_of(optimizer, params, data):
    """A convex loss, for which driver.cpp has the same formula, with its gradients."""
    optimizer.zero_grad()
    loss = sum(torch.nn.functional.softplus(torch.tensor(data["a." + name]) * p).sum()
               + (p**2).sum() / 2 for name, p in params.items())
    loss.backward()
    return loss


def drawn(optimizer):
    rng = np.random.default_rng(7)
    shapes = {"w": SHAPES["w"]} if optimizer in ("Muon", "SparseAdam") else SHAPES
    start = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    gradients = {f"g.{step}.{name}": rng.standard_normal(shape)
                 for step in range(STEPS) for name, shape in shapes.items()}
    if optimizer == "LBFGS":
        return start, {f"a.{name}": 2 * rng.standard_normal(shape) for name, shape in shapes.items()}
    if optimizer == "SparseAdam":
        for gradient in gradients.values():
            gradient[rng.permutation(5)[:3]] = 0
    return start, gradients


class TorchOptimizers(unittest.TestCase):
    def test_all_configurations(self):
        every, left_out = 0, []
        before = torch.get_default_dtype()
        self.addCleanup(torch.set_default_dtype, before)
        torch.set_default_dtype(torch.float64)  # of the factors that NAdam keeps
        for info in common_optimizers.optim_db:
            optimizer = info.optim_cls.__name__
            tally = Tally("torch.optim." + optimizer)
            # Those for "cuda" too, which differ in where PyTorch keeps its numbers.
            for config in info.optim_inputs_func(device="cuda"):
                every += 1
                given = given_in_f64(optimizer, config.kwargs)
                task = task_of(optimizer, dict(given))
                if task is None:
                    left_out.append(f"{optimizer}, {config.desc}")
                    continue
                with self.subTest(optimizer, config=config.desc):
                    start, data = drawn(optimizer)
                    theirs = trajectory(optimizer, given, start, data)
                    ours = run(task, {**{"p." + k: p for k, p in start.items()}, **data})
                    self.assertEqual(ours.keys(), theirs.keys())
                    for name in theirs:
                        tally.compare(self, ours[name], theirs[name], TOLERANCE,
                                      f"{optimizer}, {config.desc}: {name}")
                    tally.cases += 1
            if tally.cases:
                tally.report()
        print(f"torch.optim has {every} configurations, of which {every - len(left_out)} were "
              "compared", flush=True)
        self.assertEqual(left_out, [])


if __name__ == "__main__":
    unittest.main()
