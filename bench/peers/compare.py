#!/usr/bin/env python3
"""Reel and PyTorch side by side: characters a second of a whole training step.

    bench/peers/compare.py --bench build/bench/bench_layers --text FILE [--rounds 5] [--steps 30]

One run measures both, in turns (A B A B ...), at one and two threads, and prints the medians as a
table. The work is that of `char_lm train` at its defaults: embedding, two layers of 128, batch 50,
50 steps, cross entropy, clipping, Adam. The ratio is Reel's better column over PyTorch's. Without
PyTorch it prints Reel's columns and says so.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

MODELS = ("lstm", "gru")
THREADS = (1, 2)
PEER = pathlib.Path(__file__).with_name("torch_char_lm.py")


def reel(bench, model, threads):
    rows = subprocess.run(
        [bench, f"--benchmark_filter=char_lm/{model}/H128.*/threads:{threads}/",
         "--benchmark_format=json", "--benchmark_min_time=1"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(rows)["benchmarks"][0]["items_per_second"]


def torch(text, model, threads, steps):
    """The peer's report, or None where PyTorch is not installed."""
    run = subprocess.run(
        [sys.executable, PEER, "--text", text, "--model", model, "--threads", str(threads),
         "--steps", str(steps), "--json"],
        capture_output=True, text=True)
    if run.returncode == 77:
        return None
    if run.returncode != 0:
        sys.exit(run.stderr)
    return json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program bench_layers")
    parser.add_argument("--text", required=True, help="UTF-8 text file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of PyTorch, in each round")
    options = parser.parse_args()

    speeds, version = {}, None
    for _ in range(options.rounds):
        for model in MODELS:
            for threads in THREADS:
                speeds.setdefault(("reel", model, threads), []).append(
                    reel(options.bench, model, threads))
                report = torch(options.text, model, threads, options.steps)
                if report:
                    version = f"PyTorch {report['version']} with {report['blas']}"
                    speeds.setdefault(("torch", model, threads), []).append(
                        report["chars_per_s"])
    medians = {key: statistics.median(values) for key, values in speeds.items()}
    print(version or "PyTorch is not installed: see bench/peers/README.md")
    print(f"{'model':6}", *(f"{side + ', ' + str(n) + ' thread':>17}"
                            for side in ("reel", "torch") for n in THREADS), f"{'ratio':>7}")
    for model in MODELS:
        ours = [medians["reel", model, n] for n in THREADS]
        theirs = [medians.get(("torch", model, n)) for n in THREADS]
        cells = [f"{v:17,.0f}" if v else f"{'-':>17}" for v in ours + theirs]
        ratio = f"{max(ours) / max(theirs):7.2f}" if all(theirs) else f"{'-':>7}"
        print(f"{model:6}", *cells, ratio)


if __name__ == "__main__":
    main()
