#!/usr/bin/env python3
"""The cost of recording and differentiating an op, in Reel and in LibTorch.

    bench/peers/compare_tape.py --bench build/bench/bench_tape [--rounds 5]

The work is that of bench_tape: chains of a thousand ops on eight numbers, on one thread. Both
programs run in turns (A B A B ...), and the medians are printed as a table, in nanoseconds of CPU
time per op; the ratio is LibTorch's time over Reel's. LibTorch's program is built beside
bench_tape; where LibTorch is not installed this says so and ends with 77.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

from build import build

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"(plain|record|record_and_backward)<(\w+)>")
OPS = {"tanh_of": "tanh", "sum_with_itself": "add", "scaled": "mul"}


def reel(bench):
    """Nanoseconds per op by row: "record tanh" and so on."""
    report = json.loads(subprocess.run(
        [bench, "--benchmark_filter=<", "--benchmark_format=json", "--benchmark_min_time=0.3"],
        check=True, capture_output=True, text=True).stdout)
    times = {}
    for row in report["benchmarks"]:
        match = ROW.fullmatch(row["name"])
        if match and match[2] in OPS:
            times[f"{match[1]} {OPS[match[2]]}"] = 1e9 / row["items_per_second"]
    return times


def libtorch(program):
    return json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def by_pass(times):
    """The same with the backward pass by itself, not together with the recording before it."""
    both = "record_and_backward "
    return {
        name.replace(both, "backward "):
            time - times["record " + name.removeprefix(both)] if name.startswith(both) else time
        for name, time in times.items()
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, type=pathlib.Path, help="the program bench_tape")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    program = build("libtorch_tape", options.bench.parent)
    if program is None:
        return 77

    ours, theirs, version = {}, {}, None
    for _ in range(options.rounds):
        for name, time in by_pass(reel(options.bench)).items():
            ours.setdefault(name, []).append(time)
        report = libtorch(program)
        version = report.pop("version")
        for name, time in by_pass(report).items():
            theirs.setdefault(name, []).append(time)
    own_version = re.search(r"version: '(\S+)'", (ROOT / "meson.build").read_text())[1]
    compiler = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True).stdout
    print(f"Reel {own_version}, LibTorch {version}, g++ {compiler.strip()}; "
          f"ns an op, median of {options.rounds} rounds")
    print(f"{'':25} {'reel':>9} {'libtorch':>9} {'ratio':>7}")
    for name, times in theirs.items():
        if name in ours:
            a, b = statistics.median(ours[name]), statistics.median(times)
            print(f"{name:25} {a:9.1f} {b:9.1f} {b / a:7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
