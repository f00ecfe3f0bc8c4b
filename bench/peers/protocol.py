"""The Python worker's side of the protocol: answers requests of bench/compare.py, one JSON line
each.

The first line that a worker writes says who it is: {"peer": ..., "version": ..., "detail": ...}.
A request is {"row": {...}, "calls": n}; the answer has the seconds of each call and the largest
resident memory since the row was new, or says why the row was skipped. A worker keeps what it
prepared for a row until another one comes.
"""
import ctypes
import gc
import json
import os
import sys
import time


class Skipped(Exception):
    """This framework does not support the row."""


def skip_program(peer, why):
    """Ends a program whose framework is missing."""
    print(f"{peer}: skipped, {why}")
    sys.exit(77)


def forget_peak_memory():
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory_mib():
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def serve(hello, prepare, forget=lambda: None):
    """Answers until the input ends. `prepare(row)` returns a function that does the row's work
    once and has ended when it returns, or raises Skipped; `forget()` empties caches."""
    # Output of libraries must not be mixed with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say(hello)
    row = call = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["row"] != row:
                row, call = request["row"], None
                gc.collect()
                forget()
                forget_peak_memory()
                call = prepare(row)
                call()  # the first one allocates, compiles and plans
            if call is None:
                raise Skipped("as before")
            gc.disable()
            seconds = [timed(call) for _ in range(request["calls"])]
            gc.enable()
            say({"seconds": seconds, "peak_mib": peak_memory_mib()})
        except Skipped as why:
            say({"skipped": str(why)})
