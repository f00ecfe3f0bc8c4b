#!/usr/bin/env python3
"""What the gradient of an LSTM costs in Reel, and in tools that differentiate loops over scalars.

    bench/peers/compare_scalar_tapes.py --build build [--rounds 5]

REEL_ADEPT, REEL_CPPAD and REEL_CODIPACK name the folders with their headers; those that are missing
are left out, and without any this ends with 77. All programs compute the same gradient, which is
checked, and run in turns on one thread; the medians are printed as a table. `function` is the loss
without derivatives: by Reel its layer, by the others scalar_lstm.h with double.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

from build import build

PEERS = {"adept": "Adept", "codipack": "CoDiPack", "cppad": "CppAD"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path, help="Reel's build directory")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    programs = {"Reel": options.build.resolve() / "bench" / "reel_lstm"}
    for name, title in PEERS.items():
        if program := build(f"{name}_lstm", options.build / "bench"):
            programs[title] = program
    if len(programs) == 1:
        return 77

    reports = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
            reports[name].append(json.loads(answer))
    expected = reports["Reel"][0]["mixed"]
    print("| tool | function, ms | gradient, ms | gradient / function |")
    print("|---|---|---|---|")
    for name, of in reports.items():
        if any(not math.isclose(report["mixed"], expected, rel_tol=1e-10) for report in of):
            raise SystemExit(f"{name} computed another gradient than Reel")
        function, gradient, ratio = (
            statistics.median(pick(report) for report in of) for pick in
            (lambda r: r["function"], lambda r: r["gradient"],
             lambda r: r["gradient"] / r["function"]))
        print(f"| {name} | {function:.3g} | {gradient:.3g} | {ratio:.3g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
