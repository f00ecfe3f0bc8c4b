"""The results of bench/compare.py as text: aligned Markdown, also readable in a terminal."""
import math
import re
import statistics


def table(header, lines, left=1):
    """An aligned table whose first `left` columns are text and whose others are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *lines)]

    def line(cells):
        padded = [cell.ljust(width) if i < left else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, lines)])


def best(measured, peer):
    """The peer's result at its best number of threads, or None."""
    results = [result for result in measured["results"] if result["peer"] == peer]
    return min(results, key=lambda result: result["seconds"], default=None)


def on(measured, peer, threads):
    return next((result for result in measured["results"]
                 if (result["peer"], result["threads"]) == (peer, threads)), None)


def time_ratio(theirs, own):
    """The median of the rounds' ratios of times."""
    return statistics.median(a / b for a, b in zip(theirs["rounds"], own["rounds"]))


def peers_of(run):
    names = dict.fromkeys(worker["name"] for worker in run["workers"])
    return [name for name in names if name != run["reel"]]


def gigaflops(measured, result):
    return 1e-9 * measured["flop"] / result["seconds"]


def fraction_of_peak(measured, result):
    """The median of the rounds' rates, each to the peak of its round."""
    peaks = measured["peak_gflops"][str(result["threads"])]
    return statistics.median(1e-9 * measured["flop"] / seconds / peak
                             for seconds, peak in zip(result["rounds"], peaks))


def row_cells(run, measured):
    own = best(measured, run["reel"])
    cells = [measured["row"]["name"], f"{1e3 * own['seconds']:.4g}"]
    for threads in run["threads"]:
        result = on(measured, run["reel"], threads)
        cells += [f"{gigaflops(measured, result):.1f}", f"{fraction_of_peak(measured, result):.2f}"
                  ] if measured["flop"] else ["", ""]
    held = own["activation_bytes"]
    cells += [f"{own['peak_mib']:.0f}", f"{held / measured['tokens']:.0f}" if held else ""]
    for peer in peers_of(run):
        theirs = best(measured, peer)
        cells.append(f"{time_ratio(theirs, own):.2f} ({theirs['peak_mib']:.0f})"
                     if theirs else "")
    return cells


def main_table(run):
    header = ["work", "ms"]
    for threads in run["threads"]:
        header += [f"GFLOP/s, {threads} thr.", "of peak"]
    header += ["MiB", "B/token", *peers_of(run)]
    return table(header, [row_cells(run, measured) for measured in run["rows"]])


class Figures:
    """Lines that follow from several rows: what, figure, aim."""

    def __init__(self, run):
        self.run, self.lines = run, []
        self.rows = {measured["row"]["name"]: measured for measured in run["rows"]}

    def add(self, what, figure, aim):
        self.lines.append([what, figure, aim])

    def seconds(self, name):
        return best(self.rows[name], self.run["reel"])["seconds"] if name in self.rows else None

    def times(self, what, first, second, aim):
        """Of the first row's time to the second's."""
        seconds = self.seconds(first), self.seconds(second)
        if all(seconds):
            self.add(what, f"{seconds[0] / seconds[1]:.2f}", aim)

    def kinds(self):
        for name in list(self.rows):
            if re.fullmatch(r"lstm training H\d+ L\d B\d+ T64", name):
                gru, rnn = name.replace("lstm", "gru"), name.replace("lstm", "rnn")
                self.times(f"time of {gru} to lstm", gru, name, "about 0.75")
                self.times(f"time of {rnn} to gru", rnn, gru, "about 0.33")

    def steps(self):
        for kind, aim in (("gru", 8), ("lstm", 10)):
            seconds = self.seconds(f"{kind} 100 steps H128 B1")
            if seconds:
                self.add(f"{kind}(128), a step at batch 1, µs", f"{1e4 * seconds:.1f}",
                         f"at most {aim}")

    def samples(self):
        """The time of a step of a stream."""
        for name, measured in self.rows.items():
            if measured["row"]["work"] == "streaming":
                steps = measured["row"]["steps"]
                self.add(f"{name}, ns a sample", f"{1e9 * self.seconds(name) / steps:.0f}",
                         "at most 2500" if name == "lstm 1000 samples H128" else "")

    def whole_steps(self):
        """A character model's rate to that of its layers alone."""
        for name, whole in self.rows.items():
            alone = self.rows.get(name.replace("char_lm", "training"))
            if whole["row"]["work"] == "char_lm" and alone:
                for threads in self.run["threads"]:
                    rates = [gigaflops(row, on(row, self.run["reel"], threads))
                             for row in (whole, alone)]
                    self.add(f"{name}, rate to its layers', {threads} thr.",
                             f"{rates[0] / rates[1]:.2f}", "at least 0.9")

    def custom_cells(self):
        for name in self.rows:
            if " unroll " in name:
                self.times(f"{name}, rate to the fused layer's",
                                name.replace("unroll", "training"), name, "at least 0.75")

    def options_of_layers(self):
        """Rows beside the plain layer of the same size."""
        for name, what, beside, aim in (
                ("packed", "lengths from 1 to T, time to that of a full batch", "lstm training",
                 "about 0.5"),
                ("peephole training", "time to an LSTM without them", "lstm training",
                 "at most 1.15"),
                ("own training", "a program's own cell, time to the library's",
                 "peephole training", "at most 1.1"),
                ("projection training", "to half of the units, time to an LSTM", "lstm training",
                 "below 0.8"),
                ("layer_norm training", "time to an LSTM", "lstm training", "at most 1.5"),
                ("zoneout training", "time to an LSTM", "lstm training", "at most 1.2"),
                ("diagnosed", "time to a step that is not watched", "lstm training",
                 "at most 1.1"),
                ("tbptt", "4 updates that look back over 64 steps, time to one", "lstm training",
                 "about 3")):
            for row in self.rows:
                if f"{name} H" in row:
                    size = row[row.index(" H"):]
                    self.times(f"{row}: {what}", row, beside + size, aim)

    def scans(self):
        for name, measured in self.rows.items():
            if " training " in name and measured["row"]["kind"] == "mingru":
                self.times(f"time of {name} to lstm", name, name.replace("mingru", "lstm"),
                           "below 0.5")
            copy = self.rows.get(name.replace("scan ", "copy "))
            for threads in self.run["threads"] if name.startswith("scan ") and copy else ():
                theirs, own = (on(row, self.run["reel"], threads) for row in (copy, measured))
                self.add(f"{name}, speed to a copy of as many bytes, {threads} thr.",
                         f"{time_ratio(theirs, own):.2f}", "at least 0.7")

    def activations(self):
        for name, measured in self.rows.items():
            row, aims = measured["row"], {"lstm": 8, "gru": 6}
            if row["work"] == "training" and row["kind"] in aims and row["steps"] == 64:
                held = best(measured, self.run["reel"])["activation_bytes"]
                floats = held / 4 / measured["tokens"] / row["layers"] / row["hidden"]
                self.add(f"{name}, floats a token, layer and unit", f"{floats:.2f}",
                         f"at most {aims[row['kind']]}")

    def lengths(self):
        """The time of a step of the sequence, at all lengths."""
        measured = [m for name, m in self.rows.items() if "lstm training H64 L1 B8 " in name]
        for threads in self.run["threads"] if len(measured) > 1 else ():
            steps = [m["row"]["steps"] for m in measured]
            seconds = [on(m, self.run["reel"], threads)["seconds"] for m in measured]
            slope = statistics.linear_regression(
                [math.log(t) for t in steps], [math.log(s) for s in seconds]).slope
            each = ", ".join(f"{1e6 * s / t:.3g}" for s, t in zip(seconds, steps))
            self.add(f"µs a step at T = {', '.join(map(str, steps))}, {threads} thr.", each, "equal")
            self.add(f"the power of T with which time grows, {threads} thr.", f"{slope:.2f}",
                     "0.85 to 1.15")

    def together(self):
        for pair in self.run["together"]:
            kept = [f"{100 * pair['alone'] / time:.0f}%" for time in pair["together"]]
            self.add(f"{pair['row']['name']}, two processes of {pair['threads']} thr. at once, "
                     "speed of each to one alone", " and ".join(kept), "at least 40%")

    def margins(self):
        for peer in peers_of(self.run):
            ratios = [(time_ratio(theirs, best(m, self.run["reel"])), name)
                      for name, m in self.rows.items() if (theirs := best(m, peer))]
            if ratios:
                ratio, name = min(ratios)
                self.add(f"smallest ratio to {peer}: {name}", f"{ratio:.2f}", "above 1")


def figures_table(run):
    figures = Figures(run)
    for add in (figures.kinds, figures.steps, figures.samples, figures.whole_steps,
                figures.custom_cells, figures.options_of_layers, figures.scans, figures.activations,
                figures.lengths, figures.together, figures.margins):
        add()
    return table(["figure", "measured", "aim"], figures.lines) if figures.lines else ""


def heading(run):
    where = run["machine"]
    own = next(worker for worker in run["workers"] if worker["name"] == run["reel"])
    others = "; ".join(f"{peer} ({detail})" for peer, detail in dict(
        (worker["name"], worker["detail"]) for worker in run["workers"]
        if worker["name"] != run["reel"]).items())
    mode = " Quick: peers on the largest number of threads alone." if run["quick"] else ""
    return (f"{run['date']}, {where['cpu']}, {where['cores']} cores, {where['system']}, "
            f"load {where['load']} at the start. {run['reel']} at {run['commit']}, compiled by "
            f"{own['detail']}. Beside it: {others or 'no other framework found'}. Medians of "
            f"{run['rounds']} rounds.{mode}")


EXPLANATION = """\
Times, memory (MiB, the largest resident) and the ratios are those at each side's best number of
threads; a ratio is the other framework's time over Reel's, round by round, with its memory in
brackets. GFLOP/s count the operations of matrix products; *of peak* is their fraction of the fused
multiply-adds that as many threads do on registers, round by round in the same turns. B/token: bytes that the tape holds
between forward and backward, for each step of each sequence."""


def markdown(run):
    return "\n\n".join(part for part in (
        heading(run), EXPLANATION, main_table(run), figures_table(run)) if part)


def write_into(page, text, mark="measured"):
    """Puts the text between the marks of the page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    if not found or end not in rest:
        raise SystemExit(f"{page} has no lines {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")
