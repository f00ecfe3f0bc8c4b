#!/usr/bin/env python3
"""Measures how the time of a training step grows with each size, and looks for cliffs.

    bench/curves.py --build build [--markdown FILE] [--picture FILE]

For each size alone the time should lie on a smooth curve: a constant, a part that grows with the
size and one with its square, none of them negative. A cliff is a point more than 1.6 times above
that. Points take turns, round by round, and each counts with its median.
"""
import argparse
import datetime
import itertools
import pathlib
import statistics

import compare
import report
import rows

HERE = pathlib.Path(__file__).resolve().parent
CLIFF = 1.6
HIDDEN = (16, 17, 24, 31, 33, 48, 63, 65, 80, 97, 127, 129, 160, 200, 255, 257, 320, 383, 385, 450,
          511, 513, 600, 700, 767, 769, 900, 1023, 1025, 1100)
BATCH = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 23, 31, 33, 41, 48, 50, 63, 65, 80, 97, 113, 127,
         128)
STEPS = (1, 2, 3, 5, 8, 13, 20, 33, 50, 81, 100, 150, 251, 400, 500, 777, 1000, 1414, 2000)
SHARES = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)  # per cent of the longest sequence
SYMBOLS = (2, 3, 10, 27, 64, 65, 100, 191, 257, 500, 999, 1025, 2000, 4097, 7000, 10_000, 20_001,
           33_000)


def lengths(share, batch, steps):
    """Sequences of which one has all steps, and all together this share of them."""
    others = max(1, round((share * batch / 100 * steps - steps) / (batch - 1)))
    spread = min(others - 1, steps - others)
    return [steps] + [others + (spread if i % 2 else -spread) * (i // 2 % 5) // 5
                      for i in range(batch - 1)]


def curves():
    """Lists of rows by the name of the size that grows in them, with that size."""
    training = rows.layers
    for kind in ("lstm", "gru"):
        yield f"{kind}, units (B 32, T 32)", [
            (h, training("training", kind, h, 1, 32, 32)) for h in HIDDEN]
        yield f"{kind}, batch (H 128, T 64)", [
            (b, training("training", kind, 128, 1, b, 64)) for b in BATCH]
        yield f"{kind}, steps (H 64, B 8)", [
            (t, training("training", kind, 64, 1, 8, t)) for t in STEPS]
    yield "lstm, share of padded steps used, % (H 128, B 32, T 64)", [
        (share, training("packed", "lstm", 128, 1, 32, 64, lengths=lengths(share, 32, 64)))
        for share in SHARES]
    yield "lstm char_lm, symbols (H 128, B 16, T 32)", [
        (v, training("char_lm", "lstm", 128, 1, 16, 32, symbols=v)) for v in SYMBOLS]


def solve(matrix, right):
    """The solution of a small system with a positive definite matrix, by Gaussian elimination."""
    system = [[*line, value] for line, value in zip(matrix, right)]
    for i, pivot in enumerate(system):
        for line in system[i + 1:]:
            factor = line[i] / pivot[i]
            line[i:] = [a - factor * b for a, b in zip(line[i:], pivot[i:])]
    result = [0.0] * len(system)
    for i in reversed(range(len(system))):
        known = sum(a * x for a, x in zip(system[i][i + 1:-1], result[i + 1:]))
        result[i] = (system[i][-1] - known) / system[i][i]
    return result


def smooth(points):
    """The curve c0 + c1 x + c2 x², all c >= 0, with the least squares of relative errors."""
    best = None
    for powers in itertools.chain.from_iterable(
            itertools.combinations(range(3), count) for count in (1, 2, 3)):
        terms = [[x ** p / y for p in powers] for x, y in points]
        matrix = [[sum(t[i] * t[j] for t in terms) for j in range(len(powers))]
                  for i in range(len(powers))]
        c = solve(matrix, [sum(t[i] for t in terms) for i in range(len(powers))])
        error = sum((sum(a * b for a, b in zip(c, t)) - 1) ** 2 for t in terms)
        if min(c) >= 0 and (best is None or error < best[0]):
            best = error, dict(zip(powers, c))
    return lambda x: sum(c * x ** p for p, c in best[1].items())


def measure(worker, points, options):
    """(size, median of the seconds of a step) for each of the points."""
    calls = [compare.calls_for(options.seconds, worker.ask(row, 1)) for _, row in points]
    rounds = [[] for _ in points]
    for _ in range(options.rounds):
        for times, count, (_, row) in zip(rounds, calls, points):
            times.append(statistics.median(worker.ask(row, count)["seconds"]))
    return [(size, statistics.median(times)) for (size, _), times in zip(points, rounds)]


def line_of(name, points):
    """A line of the table: the worst point and how far above the curve it is."""
    curve = smooth(points)
    ratio, size = max((seconds / curve(x), x) for x, seconds in points)
    return [name, str(len(points)), f"{points[0][0]} to {points[-1][0]}",
            f"{1e3 * points[0][1]:.3g} to {1e3 * points[-1][1]:.3g}", f"{ratio:.2f} at {size}"]


def draw(measured, file):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "reel", "svg.fonttype": "none"})
    from matplotlib import pyplot
    across = 2
    figure, axes = pyplot.subplots((len(measured) + 1) // across, across, figsize=(11, 13),
                                   layout="constrained")
    for axis, (name, points) in zip(axes.flat, measured.items()):
        curve, sizes = smooth(points), [x for x, _ in points]
        axis.loglog(sizes, [1e3 * curve(x) for x in sizes], color="0.7", label="smooth curve")
        for above, color in ((False, "tab:blue"), (True, "tab:red")):
            some = [(x, 1e3 * t) for x, t in points if (t > CLIFF * curve(x)) == above]
            axis.plot([x for x, _ in some], [t for _, t in some], "o", markersize=4, color=color)
        axis.set_title(name, fontsize=10)
        axis.set_ylabel("ms")
        axis.grid(True, which="major", color="0.9")
    figure.savefig(file, metadata={"Date": None})


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--build", type=pathlib.Path, default=HERE.parent / "build", help="where Reel was built")
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.1, help="of a point in a round")
    add("--markdown", type=pathlib.Path, help="page to write the table into, between its marks")
    add("--picture", type=pathlib.Path, help="default: curves.svg where Reel was built")
    options = parser.parse_args()
    options.picture = options.picture or options.build / "curves.svg"
    return options


def main():
    options = parse_arguments()
    worker = compare.Worker([options.build / "bench" / "worker"], options.threads)
    measured = {}
    for name, points in curves():
        compare.note(name)
        measured[name] = measure(worker, points, options)
    worker.end()
    draw(measured, options.picture)
    machine = compare.machine()
    text = (f"{datetime.date.today().isoformat()}, {machine['cpu']}, {worker.name}, threads: "
            f"{options.threads}, medians of {options.rounds} rounds.\n\n" +
            report.table(["time of a training step against", "points", "sizes", "ms",
                          "furthest above the curve"],
                         [line_of(name, points) for name, points in measured.items()]))
    print(text)
    if options.markdown:
        report.write_into(options.markdown, text, "curves")


if __name__ == "__main__":
    main()
