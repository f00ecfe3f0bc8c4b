#!/usr/bin/env python3
"""A compiler launcher: reuse.py BUILD TREE COMPILER ARGUMENT...

Instead of compiling a source of the library, which is in TREE, it takes the object that was compiled in
BUILD, if the flags are the same; otherwise it fails and prints both. Other sources are compiled.
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from consumers import compile_commands

# Warnings, includes, precompiled headers, where output goes and what is the default change no code.
HARMLESS = re.compile(r"-fdiagnostics|-fpch|-fmacro-prefix|-m64$")


def flags(words):
    return sorted({word for word in words if re.match(r"-f|-m|-O|-std|-DEIGEN|-DNDEBUG", word)
                   and not HARMLESS.match(word)})


def main():
    build, tree, *command = sys.argv[1:]
    if "-c" not in command:
        return subprocess.call(command)
    source = os.path.relpath(os.path.realpath(command[command.index("-c") + 1]), os.path.realpath(tree))
    output = command[command.index("-o") + 1]
    if source.endswith("cmake_pch.hxx.cxx"):  # nothing is compiled with it
        pathlib.Path(output).touch()
        return 0
    level = "".join(word for word in command if word.startswith("-march="))
    known = compile_commands(pathlib.Path(build)).get((source, level))
    if not known:
        return subprocess.call(command)
    theirs, ours = flags(shlex.split(known["command"])), flags(command)
    if theirs != ours:
        print(f"{source}:\nfirst build: {theirs}\nthis build: {ours}")
        return 1
    shutil.copy2(os.path.join(known["directory"], known["output"]), output)
    return 0


sys.exit(main())
