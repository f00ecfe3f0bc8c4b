"""Runs the tests of this folder, a file in each process, on all cores: python3 tests/cli [-k NAME]"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
NO_TESTS = 5  # the status from Python 3.12 on if no test has the name


def run(module):
    done = subprocess.run([sys.executable, "-m", "unittest", module, *sys.argv[1:]], cwd=HERE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="", flush=True)
    return done.returncode in (0, NO_TESTS)


with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    passed = list(pool.map(run, sorted(path.stem for path in HERE.glob("test_*.py"))))
sys.exit(not all(passed))
