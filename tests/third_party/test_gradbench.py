"""The evals of GradBench, answered by Reel in their protocol, and validated by their scripts, which
compare with the hand-written C++ of their tool `manual`. REEL_GRADBENCH names a checkout.

    python3 tests/third_party/test_gradbench.py --times [--rounds N]

prints a table of times beside those of their tools `manual` and `pytorch`, one thread each."""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import unittest

from reel_driver import BUILD, package, place

ROOT = place("REEL_GRADBENCH")
for needed in ("dataclasses_json", "pydantic", "scipy"):  # by their scripts
    package(needed)
if not shutil.which("make"):
    raise unittest.SkipTest("there is no make, which builds their tool manual")

CHECKED = {
    "hello": [], "saddle": [], "particle": [],
    "lse": ["-n", "2", "2500", "40000"],
    "llsq": ["-n", "16", "1024", "-m", "1", "128"],
    "kmeans": ["-k", "10", "100", "-n", "1000", "-d", "8", "16"],
    "ode": ["-n", "2", "1000", "-s", "1", "10"],
    "gmm": ["-d", "2", "10", "-k", "5", "10", "-n", "100", "-m", "2", "--gamma", "1.5"],
    "lstm": ["-l", "1", "2", "-c", "200"]}
TIMED = {
    "lse": ["-n", "2500", "40000", "640000"],
    "kmeans": ["-k", "10", "100", "-n", "10000", "-d", "16"],
    "gmm": ["-d", "2", "10", "32", "-k", "5", "50"],
    "lstm": ["-l", "2", "-c", "1024"],
    "llsq": ["-n", "1024", "16392"],
    "ode": ["-n", "1000", "100000", "-s", "10"]}
WITHOUT = {"manual": ["saddle", "particle"], "pytorch": ["llsq", "ode", "saddle", "particle"]}


FLAGS = {"CXXFLAGS": "-std=c++17 -O3 -I../../cpp -I/usr/include/nlohmann"}  # Debian's json.hpp


@contextlib.contextmanager
def workplace():
    """A folder with their scripts and `manual`, built."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part in ("cpp", "python"):
            (folder / part).symlink_to(ROOT.resolve() / part)
        shutil.copytree(ROOT / "tools" / "manual", folder / "tools" / "manual")
        programs = [f"bin/{name}" for name in CHECKED if name not in WITHOUT["manual"]]
        subprocess.run(["make", "-s", "-j2", "-C", "tools/manual", *programs], cwd=folder,
                       env={**os.environ, **FLAGS}, check=True)
        text = folder / "evals" / "lstm" / "data" / "lstm_full.txt"
        text.parent.mkdir(parents=True)
        theirs = ROOT / "evals" / "lstm" / "data" / "lstm_full.txt"
        if theirs.exists() and theirs.stat().st_size > 10000:
            shutil.copy(theirs, text)
        else:  # characters of 14 bits, as some of theirs have
            draw = random.Random(0)
            text.write_text("".join(chr(draw.choice([*range(32, 127), 8212, 8217]))
                                    for _ in range(10000)), encoding="utf8")
        yield folder


def commands(tool):
    python = [sys.executable]
    return {"reel": [BUILD / "tests" / "gradbench", "1"],
            "manual": [*python, "-m", "gradbench.cpp", "manual"],
            "pytorch": [*python, "python/gradbench/gradbench/tools/pytorch/run.py"]}[tool]


def evaluations(folder, name, options, tool):
    """What the script of an eval asks a tool for, the answers, and what it says to them."""
    environment = {**os.environ, **FLAGS, "PYTHONPATH": str(folder / "python" / "gradbench"),
                   "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": folder,
             "env": environment}
    script = f"python/gradbench/gradbench/evals/{name}/run.py"
    found = {}
    with subprocess.Popen([sys.executable, script, *options], **pipes) as asking, \
            subprocess.Popen(commands(tool), **pipes) as answering:
        for line in asking.stdout:
            answering.stdin.write(line)
            answering.stdin.flush()
            answer = answering.stdout.readline()
            message = json.loads(line)
            if message["kind"] == "evaluate":
                found[message["id"]] = {
                    "what": (message["function"], message.get("description", "")),
                    "answer": json.loads(answer), "analysis": None}
            elif message["kind"] == "analysis":
                found[message["of"]]["analysis"] = message
            asking.stdin.write(answer)
            asking.stdin.flush()
        asking.stdin.close()
        answering.stdin.close()
    if asking.returncode or answering.returncode:
        raise RuntimeError(f"{name} with {tool}: codes {asking.returncode}, {answering.returncode}")
    return list(found.values())


class GradBench(unittest.TestCase):
    def test_all_evals(self):
        with workplace() as folder:
            for name, options in CHECKED.items():
                quick = [] if name == "hello" else ["--min-seconds", "0"]
                with self.subTest(name):
                    found = evaluations(folder, name, [*options, *quick], "reel")
                    self.assertGreater(len(found), 0)
                    for one in found:
                        self.assertTrue(one["answer"]["success"], one["answer"].get("error"))
                        self.assertTrue(one["analysis"]["valid"], (one["what"], one["analysis"]))
                    print(f"GradBench {name}: {len(found)} evaluations, all valid",
                          file=sys.stderr)


def times(folder, rounds, names):
    """Medians over the rounds of each one's median, printed as a table, eval by eval."""
    print("| eval | function | size | Reel, ms | manual, ms | PyTorch, ms | PyTorch / Reel |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        samples = {}
        tools = [t for t in ("reel", "manual", "pytorch") if name not in WITHOUT.get(t, [])]
        own = ["--no-validation"] if name in ("gmm", "lstm") else []
        for tool in tools * rounds:
            for one in evaluations(folder, name, [*TIMED[name], *own, "--min-seconds", "0.3",
                                                  "--min-runs", "3"], tool):
                runs = [t["nanoseconds"] for t in one["answer"]["timings"]
                        if t["name"] == "evaluate"]
                row = samples.setdefault(one["what"], {})
                row.setdefault(tool, []).append(statistics.median(runs) / 1e6)
        for (function, size), row in samples.items():
            of = {tool: statistics.median(each) for tool, each in row.items()}
            cells = [f"{of[t]:.3g}" if t in of else "–" for t in ("reel", "manual", "pytorch")]
            ratio = f"{of['pytorch'] / of['reel']:.3g}" if "pytorch" in of else "–"
            print(f"| {name} | {function} | {size} | {' | '.join(cells)} | {ratio} |", flush=True)


if __name__ == "__main__":
    if "--times" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--times", nargs="*", choices=[*TIMED, []])
        parser.add_argument("--rounds", type=int, default=5)
        arguments = parser.parse_args()
        with workplace() as where:
            times(where, arguments.rounds, arguments.times or TIMED)
    else:
        unittest.main()
