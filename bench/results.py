"""Runs the measurements behind docs/results.md: ./dev results [--missing] [NAME...]

The tables are those of result_tables.py. A row is a program of examples/ with some options, run once
for each seed, on one core, with as many runs side by side as there are cores. The lines that count,
what was run, its results and how long it took, go to docs/results/NAME.txt, from which the table is
made again.
"""
import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading

from result_tables import TABLES

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
DATA = pathlib.Path(os.environ.get("REEL_DATA", ROOT.parent / "shared" / "data"))
PEER_PYTHON = os.environ.get("REEL_PEER_PYTHON", sys.executable).split(":")[0]
MARK = re.compile(r"(<!-- results ([\w-]+) -->\n\n)((?:\|.*\n)*)")


# ---------------------------------------------------------------------------------------- the logs

def log_file(table):
    return FOLDER / f"{table.name}.txt"


def blocks_of(table):
    """What the log of a table holds: {command: lines}."""
    path = log_file(table)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    blocks = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return {command: lines for command, *lines in map(str.splitlines, blocks)}


def write_log(table, blocks):
    """Writes what there is of the table's runs, in their order."""
    lines = [line for command in commands(table) if command in blocks
             for line in (f"$ {command}", *blocks[command])]
    FOLDER.mkdir(exist_ok=True)
    log_file(table).write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands_of(row):
    return [f"{row.command} --seed {seed}" for seed in row.seeds]


def commands(table):
    return [command for row in table.rows for command in commands_of(row)]


def value_in(lines, quantity):
    """The last number of a quantity among the lines of a run, or None."""
    found = [match[1] for line in lines if (match := re.search(quantity.pattern, line))]
    return float(found[-1].replace(",", "")) if found else None


# ---------------------------------------------------------------------------------------- the runs

def missing_file(command):
    """The first file of the data that a command reads and that is not there."""
    paths = [DATA / word.removeprefix("DATA/") for word in shlex.split(command)
             if word.startswith("DATA/")]
    return next((path for path in paths if not path.exists()), None)


def run(command, build, core):
    """Runs a program on a core; the lines of its output and, as the last one, the time that it took,
    or None if it was skipped."""
    program, *words = shlex.split(command)
    words = [word.replace("DATA/", f"{DATA}/") for word in words]
    with tempfile.TemporaryDirectory() as folder:
        if program.endswith(".py"):
            words = [PEER_PYTHON, ROOT / "bench" / "peers" / program, *words]
        else:
            words = [build / "examples" / program, *words]
        if program == "char_lm":
            words += ["--run", f"{folder}/run"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True,
                              preexec_fn=lambda: os.sched_setaffinity(0, {core})) as started:
            output = started.stdout.read()
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode == 77:
        return None
    if started.returncode != 0:
        raise RuntimeError(f"{command} ended with {started.returncode}")
    took = f"took {usage.ru_utime + usage.ru_stime:.0f} s of a core of {processor()}"
    return [*output.splitlines(), took]


def lines_that_count(lines, table):
    """Of an output the last line with each of a table's quantities, and the time."""
    last = {quantity: line.strip() for line in lines for quantity in table.quantities
            if re.search(quantity.pattern, line)}
    return [*dict.fromkeys(last.values()), lines[-1]]


def processor():
    names = re.findall(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text("utf-8"),
                       re.MULTILINE)
    return names[0] if names else "an unknown processor"


def measure(tables, build, only_missing):
    """Runs the rows of tables, what several have once, and writes their logs after each run; false
    if one failed."""
    blocks = {table.name: blocks_of(table) for table in tables}
    users = {}  # the tables of a command
    for table in tables:
        for command in commands(table):
            if not (only_missing and command in blocks[table.name]):
                users.setdefault(command, []).append(table)
    cores, writing = queue.Queue(), threading.Lock()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(command):
        if absent := missing_file(command):
            print(f"skipped, as there is no {absent}: {command}", flush=True)
            return True
        core = cores.get()
        try:
            lines = run(command, build, core)
        except RuntimeError as error:
            print(f"results: {error}", file=sys.stderr, flush=True)
            return False
        finally:
            cores.put(core)
        if not lines:
            print(f"skipped: {command}", flush=True)
            return True
        with writing:
            print(f"$ {command}", *lines_that_count(lines, users[command][0]), sep="\n", flush=True)
            for table in users[command]:
                blocks[table.name][command] = lines_that_count(lines, table)
                write_log(table, blocks[table.name])
        return True

    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        return all(list(pool.map(one, users)))


# --------------------------------------------------------------------------------------- the tables

def number(x, digits):
    """With that many significant digits; whole from there on, and huge ones with an exponent."""
    if abs(x) < 10 ** digits:
        return f"{x:.{digits}g}"
    return f"{x:,.0f}" if abs(x) < 1e9 else f"{x:.1e}"


def cell(values, digits):
    """The mean of some values, and their range if it is one."""
    if not values:
        return ""
    mean, low, high = (number(x, digits)
                       for x in (statistics.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def table_text(table, blocks):
    """The table in Markdown; a row that was not run has no numbers."""
    with_published = any(row.published for row in table.rows)
    columns = [quantity.heading for quantity in table.quantities] + ["seeds", "a run"]
    published = ["published"] if with_published else []
    lines = ["| " + " | ".join(["setting", *columns, *published, "command"]) + " |",
             "|---|" + "---:|" * len(columns + published) + "---|"]
    for row in table.rows:
        runs = [blocks[command] for command in commands_of(row) if command in blocks]
        values = [[value for lines_of in runs if (value := value_in(lines_of, quantity)) is not None]
                  for quantity in table.quantities]
        times = [float(line.split()[1]) for lines_of in runs for line in lines_of
                 if line.startswith("took ")]
        cells = [cell(numbers, quantity.digits)
                 for numbers, quantity in zip(values, table.quantities)]
        cells += [str(len(runs)), f"{statistics.mean(times):.0f} s" if times else ""]
        cells += [row.published] if with_published else []
        lines.append("| " + " | ".join([row.setting, *cells, f"`{row.command}`"]) + " |")
    return "\n".join(lines) + "\n"


def rewritten(page):
    """The page with each table made anew from its log."""
    tables = {table.name: table for table in TABLES}
    return MARK.sub(lambda m: m[1] + table_text(tables[m[2]], blocks_of(tables[m[2]])), page)


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
    chosen = [table for table in TABLES if not given.names or table.name in given.names]
    complete = measure(chosen, given.build, given.missing)
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
