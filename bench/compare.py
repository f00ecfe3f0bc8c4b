#!/usr/bin/env python3
"""Compares Reel and other frameworks on the same work in the same run, in one table.

    bench/compare.py --build build [--quick] [--rows REGEX] [--json FILE] [--markdown FILE]

Every framework has one worker process for each number of threads; workers answer "do this row n
times" (bench/peers/protocol.py). They take turns, A B A B ..., one at a time, and the median of the
rounds is reported. The peak of fused multiply-adds is measured in the same turns: other load on the
machine then slows down both.
The rows are those of bench/rows.py; frameworks that are not installed are named and left out.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys

import report
import rows
from peers.build import build

HERE = pathlib.Path(__file__).resolve().parent
PEAK = {"name": "peak", "work": "peak"}
MOST_CALLS = 1000  # in a round


def note(text):
    print(text, file=sys.stderr, flush=True)


class Worker:
    """A process that does rows on `threads` threads; `hello` is None where it does not run.

    It is stopped during the others' turns: threads of some frameworks spin for a while after their
    work is done.
    """

    def __init__(self, command, threads, name=None):
        self.command, self.threads = [str(part) for part in command], threads
        self.start()
        if self.hello is not None:
            self.name = name or f"{self.hello['peer']} {self.hello['version']}"

    def start(self):
        count = str(self.threads)
        # Spinning threads take cores from other threads of their own process: OpenMP's and
        # OpenBLAS's.
        environment = {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count,
                       "MKL_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen([*self.command, count], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment)
        first = self.process.stdout.readline()
        self.hello = json.loads(first) if first.startswith("{") else None
        if self.hello is None:
            note(f"{first.strip() or 'no answer'} ({' '.join(self.command)})")
        else:
            self.signal(signal.SIGSTOP)

    def signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def send(self, row, calls):
        self.signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps({"row": row, "calls": calls}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # receive() says so

    def receive(self):
        line = self.process.stdout.readline()
        self.signal(signal.SIGSTOP)
        if line:
            return json.loads(line)
        note(f"{self.name}: ended with {self.process.wait()}")
        self.start()  # an earlier version of Reel ends at a row that it does not know
        return {"skipped": "the worker has ended"}

    def ask(self, row, calls):
        self.send(row, calls)
        return self.receive()

    def end(self):
        self.signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


def calls_for(seconds, answer):
    """The number of calls that fill a round of this many seconds, estimated from one call."""
    return max(1, min(MOST_CALLS, round(seconds / answer["seconds"][0])))


def measure(row, workers, peaks, options):
    """The row's measurements: for every worker the median and the rounds, and the peaks."""
    calls, found = {}, {}
    for worker in workers:
        answer = worker.ask(row, 1)
        if "skipped" not in answer:
            calls[worker] = calls_for(options.seconds, answer)
            found[worker] = []
    peak = {str(threads): [] for threads in peaks}
    for _ in range(options.rounds):
        for threads, worker in peaks.items():
            peak[str(threads)].append(worker.ask(PEAK, 1)["gflops"])
        for worker, answers in found.items():
            answer = worker.ask(row, calls[worker])
            if "skipped" not in answer:
                answers.append(answer)
    results = [
        {"peer": worker.name, "threads": worker.threads, "calls": calls[worker],
         "seconds": statistics.median(times), "rounds": times, "peak_mib": answers[-1]["peak_mib"],
         "activation_bytes": answers[-1].get("activation_bytes")}
        for worker, answers in found.items()
        if (times := [statistics.median(answer["seconds"]) for answer in answers])]
    return {"row": row, "flop": rows.flop(row), "tokens": rows.tokens(row),
            "peak_gflops": peak, "results": results}


def measure_together(row, command, threads, options):
    """Two processes that do the row concurrently, compared with one that does it alone."""
    pair = [Worker(command, threads) for _ in range(2)]
    calls = calls_for(max(options.seconds, 0.2), [worker.ask(row, 1) for worker in pair][0])
    alone, together = [], []
    for _ in range(options.rounds):
        alone.append(statistics.median(pair[0].ask(row, calls)["seconds"]))
        for worker in pair:
            worker.send(row, calls)
        together.append([statistics.median(worker.receive()["seconds"]) for worker in pair])
    for worker in pair:
        worker.end()
    return {"row": row, "threads": threads, "alone": statistics.median(alone),
            "together": [statistics.median(times) for times in zip(*together)]}


def peer_commands(options):
    for name in ("onednn_layers", "libtorch_layers", "rtneural_layers"):
        if program := build(name, options.build / "bench"):
            yield [program]
    scripts = HERE / "peers"
    for python in options.python.split(":"):
        yield [python, scripts / "torch_layers.py"]
        if not options.quick:  # its compiler takes longer than all else together
            yield [python, scripts / "torch_layers.py", "--compile"]
        yield [python, scripts / "jax_layers.py"]


def start_peers(options):
    """A worker for each framework found and number of threads; only the largest for a quick run,
    and where each number means to compile everything again."""
    workers, seen = [], set()
    for command in peer_commands(options):
        once = options.quick or "--compile" in command
        for threads in options.threads[-1:] if once else options.threads:
            worker = Worker(command, threads)
            if worker.hello is None:
                break
            if (worker.name, threads) in seen:  # found by another interpreter already
                worker.end()
                continue
            seen.add((worker.name, threads))
            workers.append(worker)
    return workers


def is_compared(row, peer):
    return row["compared"] is True or peer.hello["peer"] == row["compared"]


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else "unknown"


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else "unknown", "cores": len(os.sched_getaffinity(0)),
            "system": " ".join(os.uname()[i] for i in (0, 2, 4)),
            "load": round(os.getloadavg()[0], 2)}


def parse_arguments():
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--build", type=pathlib.Path, default=HERE.parent / "build", help="where Reel was built")
    add("--quick", action="store_true", help="fewer rows and rounds: under 3 minutes")
    add("--alone", action="store_true", help="Reel without the other frameworks")
    add("--before", type=pathlib.Path, metavar="BUILD",
        help="build directory of another version of Reel, for comparison in every row")
    add("--rows", type=re.compile, default="", metavar="REGEX", help="only rows with such names")
    add("--rounds", type=int)
    add("--seconds", type=float, help="of a worker in a round")
    add("--threads", type=lambda text: [int(n) for n in text.split(",")],
        default=sorted({1, cores}), metavar="N,N", help="default: 1 and all cores")
    add("--python", default=os.environ.get("REEL_PEER_PYTHON", ""), metavar="A:B",
        help="interpreters to look for frameworks in, besides /usr/bin/python3")
    add("--json", type=pathlib.Path, help="default: bench.json where Reel was built")
    add("--markdown", type=pathlib.Path, help="page to write the table into, between its marks")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.05 if options.quick else 0.3)
    options.python = ":".join(filter(None, ["/usr/bin/python3", options.python]))
    options.json = options.json or options.build / "bench.json"
    return options


def main():
    options = parse_arguments()
    run = {"date": datetime.date.today().isoformat(), "machine": machine(),
           "commit": first_line(["git", "describe", "--always", "--dirty"]),
           "quick": options.quick, "rounds": options.rounds, "threads": options.threads}
    wanted = [row for row in rows.all_rows()
              if re.search(options.rows, row["name"]) and (row["quick"] or not options.quick)]
    reel = [options.build / "bench" / "worker"]
    own = [Worker(reel, threads) for threads in options.threads]
    peaks = {threads: Worker(reel, threads) for threads in options.threads}
    before = [Worker([options.before / "bench" / "worker"], threads, "Reel before")
              for threads in options.threads if options.before]
    compared = not options.alone and any(row["compared"] for row in wanted)
    peers = start_peers(options) if compared else []
    run["reel"] = own[0].name
    run["workers"] = [{**w.hello, "name": w.name, "threads": w.threads}
                      for w in own + before + peers]

    run["rows"] = []
    for row in wanted:
        note(row["name"])
        workers = own + before + [peer for peer in peers if is_compared(row, peer)]
        run["rows"].append(measure(row, workers, peaks, options))
    for worker in [*own, *before, *peaks.values(), *peers]:
        worker.end()
    run["together"] = [
        measure_together(row, reel, options.threads[-1], options) for row in wanted
        if re.fullmatch(r"lstm training H(128 L1|512 L2) B\d+ T64", row["name"])]

    options.json.write_text(json.dumps(run, indent=1) + "\n")
    text = report.markdown(run)
    print(text)
    if options.markdown:
        report.write_into(options.markdown, text)


if __name__ == "__main__":
    main()
