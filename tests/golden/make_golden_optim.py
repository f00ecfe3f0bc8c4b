#!/usr/bin/env python3
"""Writes optim.safetensors: what PyTorch's optimizers and schedules compute, in f64.

    python3 tests/golden/make_golden_optim.py [--out DIR]      (with PyTorch 2.9 or later)

20 steps of each optimizer on a small classifier, with the loss
mean(log(1 + exp(-target * (tanh(x u) w + b)))): x [6, 4], target [6, 1] of -1 and 1, u [4, 3],
w [3, 1], b [1]. Muon trains u alone.
    x, target
    <optimizer>.{u,w,b}          [21, ...], the initial value and the one after each step
    <optimizer>.grad.{u,w,b}     [20, ...], the gradient that each step took
    asgd<...>.average.{u,w,b}    the average of ASGD after them
    lbfgs<...>.{u,w,b}           [6, ...], the initial value and the one after each call of step
    lbfgs<...>.evaluations       [5], of the loss, since the beginning
    schedule.<name>              [30], the learning rate of each step
    plateau.losses, plateau.<..> [30], and the rate after each of these losses
Optimizers and their settings are in OPTIMIZERS below and, as text, in the file's __metadata__.
PyTorch's Muon rounds its directions to bf16; here they stay in f64. Lion is not part of PyTorch and
written out below.
"""
import argparse
import json
import pathlib

import torch

import safetensors_file
from make_golden import Random

STEPS = 20


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            slow, fast = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(slow * m + (1 - slow) * p.grad))
                m.copy_(fast * m + (1 - fast) * p.grad)


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.5}),
    "sgd_l2": (torch.optim.SGD, {"lr": 0.5, "weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.5, "momentum": 0.9}),
    "dampened": (torch.optim.SGD, {"lr": 0.5, "momentum": 0.9, "dampening": 0.3,
                                   "weight_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 0.5, "momentum": 0.9, "nesterov": True}),
    "nesterov_l2": (torch.optim.SGD,
                    {"lr": 0.5, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.1}),
    "adam_l2": (torch.optim.Adam,
                {"lr": 0.1, "betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.1, "betas": (0.9, 0.8), "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.01}),
    "adamw_amsgrad": (torch.optim.AdamW,
                      {"lr": 0.1, "betas": (0.9, 0.8), "weight_decay": 0.1, "amsgrad": True}),
    "nadam": (torch.optim.NAdam, {"lr": 0.1}),
    "nadam_l2": (torch.optim.NAdam, {"lr": 0.1, "betas": (0.8, 0.95), "momentum_decay": 0.1,
                                     "weight_decay": 0.1}),
    "nadam_decoupled": (torch.optim.NAdam, {"lr": 0.1, "weight_decay": 0.1,
                                            "decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"lr": 0.1}),
    "radam_l2": (torch.optim.RAdam, {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "radam_decoupled": (torch.optim.RAdam, {"lr": 0.1, "weight_decay": 0.1,
                                            "decoupled_weight_decay": True}),
    "adamax": (torch.optim.Adamax, {"lr": 0.1}),
    "adamax_l2": (torch.optim.Adamax, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3,
                                       "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.1, "alpha": 0.95}),
    "rmsprop_momentum": (torch.optim.RMSprop,
                         {"lr": 0.1, "alpha": 0.95, "eps": 1e-3, "momentum": 0.9}),
    "rmsprop_centered": (torch.optim.RMSprop, {"lr": 0.1, "alpha": 0.9, "centered": True}),
    "rmsprop_all": (torch.optim.RMSprop, {"lr": 0.05, "alpha": 0.9, "eps": 1e-2, "momentum": 0.8,
                                          "centered": True, "weight_decay": 0.1}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "adagrad_all": (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1,
                                          "initial_accumulator_value": 0.5, "eps": 1e-3}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adadelta_l2": (torch.optim.Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3,
                                           "weight_decay": 0.1}),
    "lion": (Lion, {"lr": 0.1}),
    "lion_decay": (Lion, {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "muon": (torch.optim.Muon, {"lr": 0.1}),
    "muon_all": (torch.optim.Muon, {"lr": 0.1, "momentum": 0.8, "nesterov": False,
                                    "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}),
    "muon_coefficients": (torch.optim.Muon, {"lr": 0.1, "ns_steps": 3,
                                             "ns_coefficients": (3.0, -3.2, 1.2)}),
    "asgd": (torch.optim.ASGD, {"lr": 0.5}),
    "asgd_all": (torch.optim.ASGD, {"lr": 0.5, "lambd": 0.1, "alpha": 0.5, "t0": 5,
                                    "weight_decay": 0.01}),
    "rprop": (torch.optim.Rprop, {}),
    "rprop_all": (torch.optim.Rprop, {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.05, 0.8)}),
    "adafactor": (torch.optim.Adafactor, {"lr": 0.5}),
    "adafactor_all": (torch.optim.Adafactor, {"lr": 0.2, "beta2_decay": -0.5, "eps": (0.05, 0.5),
                                              "d": 1.5, "weight_decay": 0.1}),
}
LBFGS = {
    "lbfgs": {"max_iter": 4},
    "lbfgs_short": {"lr": 0.5, "max_iter": 3, "max_eval": 5, "history_size": 2},
    "lbfgs_fixed": {"lr": 0.5, "max_iter": 4, "history_size": 3, "line_search_fn": None},
    "lbfgs_few": {"max_iter": 9, "max_eval": 3, "line_search_fn": None},
}


def problem():
    random = Random(13)
    x, target = random.normal(6, 4), torch.sign(random.normal(6, 1))
    start = {"u": random.normal(4, 3), "w": random.normal(3, 1), "b": random.normal(1)}

    def loss_of(values):
        output = torch.tanh(x @ values["u"]) @ values["w"] + values["b"]
        return torch.log1p(torch.exp(-target * output)).mean()

    return x, target, start, loss_of


def trajectories(start, loss_of):
    tensors = {}
    for name, (make, settings) in OPTIMIZERS.items():
        values = {key: value.clone().requires_grad_() for key, value in start.items()}
        trained = {"u": values["u"]} if make is torch.optim.Muon else values
        optimizer = make(trained.values(), **settings)
        trace = {key: [start[key]] for key in trained}
        trace.update({f"grad.{key}": [] for key in trained})
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of(values).backward()
            optimizer.step()
            for key, value in trained.items():
                trace[key].append(value.detach().clone())
                trace[f"grad.{key}"].append(value.grad.clone())
        tensors.update({f"{name}.{key}": torch.stack(rows) for key, rows in trace.items()})
        if make is torch.optim.ASGD:
            tensors.update({f"{name}.average.{key}": optimizer.state[value]["ax"]
                            for key, value in trained.items()})
    return tensors


def line_searches(start, loss_of):
    tensors = {}
    for name, settings in LBFGS.items():
        values = {key: value.clone().requires_grad_() for key, value in start.items()}
        optimizer = torch.optim.LBFGS(values.values(),
                                      **{"line_search_fn": "strong_wolfe", **settings})
        trace = {key: [value] for key, value in start.items()} | {"evaluations": []}
        evaluations = 0

        def evaluate():
            nonlocal evaluations
            evaluations += 1
            optimizer.zero_grad()
            # Weight decay gives the loss a minimum.
            loss = loss_of(values) + 0.01 * sum((value**2).sum() for value in values.values())
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(evaluate)
            for key, value in values.items():
                trace[key].append(value.detach().clone())
            trace["evaluations"].append(torch.tensor(float(evaluations), dtype=torch.float64))
        tensors.update({f"{name}.{key}": torch.stack(rows) for key, rows in trace.items()})
    return tensors


def rates(make, steps=30):
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.5)
    schedule = make(optimizer)
    result = []
    for _ in range(steps):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return torch.tensor(result, dtype=torch.float64)


def schedules():
    lr = torch.optim.lr_scheduler
    makes = {
        "step": lambda o: lr.StepLR(o, 7, 0.1),
        "exponential": lambda o: lr.ExponentialLR(o, 0.9),
        "polynomial": lambda o: lr.PolynomialLR(o, 30, 2.0),
        "cosine": lambda o: lr.CosineAnnealingLR(o, 30, 0.01),
        "restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 4, 1, 0.01),
        "longer_restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 4, 2, 0.01),
        "one_cycle": lambda o: lr.OneCycleLR(o, 0.5, total_steps=31),
        "warmup_step": lambda o: lr.SequentialLR(
            o, [lr.LinearLR(o, 1 / 5, total_iters=4), lr.StepLR(o, 7, 0.1)], [5]),
    }
    tensors = {f"schedule.{name}": rates(make) for name, make in makes.items()}
    losses = Random(7).uniform(1.0, 30).abs() + 0.1
    tensors["plateau.losses"] = losses
    for name, settings in {"default": {"patience": 3}, "halved": {"factor": 0.5, "patience": 0},
                           "cooling": {"factor": 0.5, "patience": 1, "cooldown": 3,
                                       "threshold": 0.3, "min_lr": 0.01}}.items():
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([p], lr=0.5)
        plateau = lr.ReduceLROnPlateau(optimizer, **settings, eps=0)
        result = []
        for loss in losses.tolist():
            plateau.step(loss)
            result.append(optimizer.param_groups[0]["lr"])
        tensors[f"plateau.{name}"] = torch.tensor(result, dtype=torch.float64)
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent,
                        help="directory to write to (default: that of this script)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # the product of momenta of NAdam is in the default dtype
    torch.Tensor.bfloat16 = lambda self: self.clone()  # of Muon
    x, target, start, loss_of = problem()
    tensors = {"x": x, "target": target, **trajectories(start, loss_of),
               **line_searches(start, loss_of), **schedules()}
    arrays = {name: torch.as_tensor(value).detach().numpy() for name, value in tensors.items()}
    settings = {name: json.dumps(settings) for name, (_, settings) in OPTIMIZERS.items()}
    settings.update({name: json.dumps(settings) for name, settings in LBFGS.items()})
    safetensors_file.save(args.out / "optim.safetensors", arrays, torch=torch.__version__,
                          **settings)


if __name__ == "__main__":
    main()
