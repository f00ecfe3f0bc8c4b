"""What the tests of this folder share: an installation of each kind, and a user's compilers."""
import atexit
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
WERROR = os.environ.get("REEL_WERROR", "false")
LONG = os.environ.get("REEL_LONG") == "1"  # as ./dev test --long sets it
MESON, CMAKE = (f"/usr/bin/{tool}" if os.path.exists(f"/usr/bin/{tool}") else tool
                for tool in ("meson", "cmake"))
VERSION = re.search(r"version: '([0-9.]+)'", (ROOT / "meson.build").read_text()).group(1)
INTERFACE = ".".join(VERSION.split(".")[:2 if VERSION.startswith("0.") else 1])
EXPECTED = "[5, 2, 3] 1 nothing\n"
LIBRARY_ALONE = ["-Dtests=disabled", "-Dexamples=disabled", "-Dbenchmarks=disabled"]
# Nothing in the library may depend on the flags of the program that links it.
COMPILERS = [
    ("g++", "-std=c++20", "-O0", "-march=x86-64"),
    ("g++", "-std=c++23", "-O3", "-march=native", "-fvisibility=hidden"),
    ("clang++", "-std=c++20", "-O3", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
    ("clang++", "-std=c++2b", "-O0", "-march=native"),
]


def fails(*command, cwd=None, **environment):
    """Whether the command failed, and its output."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **environment},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8")
    return done.returncode != 0, done.stdout


def run(*command, cwd=None, **environment):
    failed, output = fails(*command, cwd=cwd, **environment)
    if failed:
        raise AssertionError(f"{' '.join(map(str, command))}\n{output}")
    return output


def need(*programs):
    """Skips the test if one is missing."""
    for program in programs:
        if not shutil.which(program):
            raise unittest.SkipTest(f"there is no {program}")


@functools.cache
def folder():
    """A folder of this process, which is removed at its end."""
    path = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, path)
    return path


def built(kind):
    """The library of a kind in the build directory."""
    path = BUILD / {"static": "libreel.a", "shared": f"libreel.so.{VERSION}"}[kind]
    if not path.exists():
        raise unittest.SkipTest(f"{BUILD} has no {kind} library: "
                                f"meson configure {BUILD} -Ddefault_library=both, then compile")
    return path


@functools.cache
def installed(kind):
    """The prefix of an installation configured with -Ddefault_library=KIND, after it was moved. Its
    libraries are those of the build directory, as compiling them again would take minutes."""
    libraries = [built(k) for k in (("static", "shared") if kind == "both" else (kind,))]
    build = folder() / f"build-{kind}"
    run(MESON, "setup", build, ROOT, f"-Ddefault_library={kind}", "--wrap-mode=nofallback",
        "--prefix=/opt/reel", *LIBRARY_ALONE)
    for path in libraries:
        shutil.copy2(path, build)
    run(MESON, "install", "-C", build, "--no-rebuild", "--quiet", DESTDIR=folder() / f"staging-{kind}")
    return shutil.move(folder() / f"staging-{kind}" / "opt" / "reel", folder() / f"moved-{kind}")


def archive(name):
    """An archive of the last commit, whose files are below a folder of this name."""
    need("git")
    if not (ROOT / ".git").exists():
        raise unittest.SkipTest(f"{ROOT} is no Git repository, from which archives are made")
    path = folder() / f"{name}.tar.gz"
    run("git", "-C", ROOT, "archive", f"--prefix={name}/", "-o", path, "HEAD")
    return path


def folder_of(prefix, name):
    """Of a file below the prefix."""
    path, = pathlib.Path(prefix).rglob(name)
    return path.parent


def in_parallel(calls):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda call: call(), calls))


@functools.cache
def ops():
    """The names of all ops, from the test program, which lists them."""
    table = run(BUILD / "tests" / "reel-tests", "--list-ops").split("\n\n")[0].splitlines()[1:]
    return [line.split()[0] for line in table]


def check_program(test, consumer, registry, **environment):
    """Runs a user's two programs."""
    test.assertEqual(run(consumer, **environment), EXPECTED)
    test.assertEqual(run(registry, **environment).split(), ops())


def compile_commands(build):
    """How the library's sources were compiled in a build directory, by their path in this tree and the
    instruction set."""
    commands = json.loads((build / "compile_commands.json").read_text())
    return {(os.path.relpath(os.path.realpath(os.path.join(c["directory"], c["file"])), ROOT),
             "".join(re.findall(r"-march=\S+", c["command"]))): c
            for c in commands if c["output"].startswith("libreel")}
