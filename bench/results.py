"""Runs the measurements behind docs/results.md: ./dev results [--missing] [NAME...]

Each table of that page has a name, a question, and rows: a setting, and the program of examples/ with
the options that it is. A row is run once for each seed. The lines that count, what was run, the
results that the program ends with and how long it took, go to docs/results/NAME.txt, from which the
table is made again.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
DATA = pathlib.Path(os.environ.get("REEL_DATA", ROOT.parent / "shared" / "data"))
MARK = re.compile(r"(<!-- results ([\w-]+) -->\n\n)((?:\|.*\n)*)")


@dataclasses.dataclass(frozen=True)
class Row:
    setting: str
    command: str  # "adding --cell gru"; DATA/ stands for the folder of the data
    published: str = ""
    seeds: tuple = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    quantity: str  # what the numbers are
    result: str  # how the line of the result that counts begins
    rows: tuple
    digits: int = 4  # significant ones


TABLES = (
    Table("music", "nats a frame", "test loss", tuple(
        Row(cell.upper(), f"music --data DATA/jsb-chorales-quarter.json --cell {cell}", published)
        for cell, published in (("rnn", "8.91"), ("gru", "8.43"), ("lstm", "8.45")))),
    Table("transcription", "% label errors", "% label errors of a lstm, the best of", (
        Row("LSTM, both directions, CTC", "transcribe"),), digits=2),
    Table("dates", "% exactly right", "% exactly right", (
        Row("dates, additive attention", "seq2seq"),)),
)


def runs_in(text):
    """What a log holds: {command: (result lines, seconds)}."""
    runs = {}
    for block in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = block.splitlines()
        took = next(float(line.split()[1]) for line in lines if line.startswith("took "))
        runs[command] = ([line for line in lines if line.startswith("result: ")], took)
    return runs


def log_of(table):
    path = FOLDER / f"{table.name}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def commands(row):
    return [f"{row.command} --seed {seed}" for seed in row.seeds]


def run(command, build):
    """Runs a program; its results and time as a block of a log."""
    program, *words = shlex.split(command)
    words = [word.replace("DATA/", f"{DATA}/") for word in words]
    print(f"$ {command}", flush=True)
    start = time.monotonic()
    done = subprocess.run([build / "examples" / program, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"results: {command} ended with {done.returncode}")
    results = [line for line in done.stdout.splitlines() if line.startswith("result: ")]
    took = f"took {time.monotonic() - start:.0f} s on {os.cpu_count()} x {processor()}"
    print(*results, took, sep="\n", flush=True)
    return "\n".join([f"$ {command}", *results, took]) + "\n"


def processor():
    names = re.findall(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text(),
                       re.MULTILINE)
    return names[0] if names else "an unknown processor"


def measure(table, build, only_missing):
    """Runs the rows of a table and writes its log after each run."""
    old = {command: f"$ {block}" for block in re.split(r"^\$ ", log_of(table), flags=re.MULTILINE)[1:]
           for command in [block.splitlines()[0]]}
    wanted = [command for row in table.rows for command in commands(row)]
    log = {command: old[command] for command in wanted if command in old}
    for command in wanted:
        if only_missing and command in log:
            continue
        log[command] = run(command, build)
        FOLDER.mkdir(exist_ok=True)
        text = "".join(log[each] for each in wanted if each in log)
        (FOLDER / f"{table.name}.txt").write_text(text, encoding="utf-8")


def number(x, digits):
    return f"{x:.{digits}g}"


def table_text(table, log):
    """The table in Markdown; a row that was not run has no numbers."""
    runs = runs_in(log)
    lines = [f"| setting | {table.quantity}: mean | least to most | seeds | a run | published | command |",
             "|---|---:|---:|---:|---:|---|---|"]
    for row in table.rows:
        values, times = [], []
        for command in commands(row):
            for line in runs.get(command, ([], 0))[0]:
                if line.startswith(f"result: {table.result}"):
                    values.append(float(re.search(r" = (\S+) \(", line)[1]))
                    times.append(runs[command][1])
        cells = ["", "", "0", ""]
        if values:
            cells = [number(statistics.mean(values), table.digits),
                     f"{number(min(values), table.digits)} to {number(max(values), table.digits)}",
                     str(len(values)), f"{statistics.mean(times):.0f} s"]
        lines.append("| " + " | ".join([row.setting, *cells, row.published, f"`{row.command}`"]) + " |")
    return "\n".join(lines) + "\n"


def rewritten(page):
    """The page with each table made anew from its log."""
    tables = {table.name: table for table in TABLES}
    return MARK.sub(lambda m: m[1] + table_text(tables[m[2]], log_of(tables[m[2]])), page)


def main():
    parser = argparse.ArgumentParser(prog="./dev results", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"tables: {', '.join(table.name for table in TABLES)} (all)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help=argparse.SUPPRESS)
    parser.add_argument("--missing", action="store_true", help="only what was not run before")
    given = parser.parse_args()
    unknown = set(given.names) - {table.name for table in TABLES}
    if unknown:
        parser.error(f"there is no table {', '.join(sorted(unknown))}; see --help")
    for table in TABLES:
        if not given.names or table.name in given.names:
            measure(table, given.build, given.missing)
    if PAGE.exists():
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
