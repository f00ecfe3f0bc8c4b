#!/usr/bin/env python3
"""Writes the default text of char_lm, the project's own sources and documentation, as C++.

    make_text.py ROOT OUTPUT [DEPFILE]

OUTPUT defines `reel::char_lm::default_text` (UTF-8, not terminated) and `default_text_size`; with
a name that ends in .txt it is the text itself. DEPFILE lists the files read, for Ninja.
"""
import pathlib
import sys

FOLDERS = ("docs", "autograd", "nn", "optim", "datasets", "examples")
KINDS = (".md", ".h", ".cpp")

HEAD = """\
#include <cstddef>

namespace reel::char_lm {
extern const unsigned char default_text[];
extern const std::size_t default_text_size;

const unsigned char default_text[] =
"""
TAIL = """\
;
const std::size_t default_text_size = sizeof(default_text) - 1;
}  // namespace reel::char_lm
"""


def sources(root):
    """The files of the text, in an order that depends on their names alone."""
    readme = [root / "README.md"] if (root / "README.md").exists() else []
    found = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*"))]
    return readme + [path for path in found if path.suffix in KINDS and path.is_file()]


def literal(line):
    escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}\\n"'


def main(root, output, depfile=None):
    files = sources(pathlib.Path(root))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    if not output.endswith(".txt"):
        text = HEAD + "\n".join(map(literal, text.removesuffix("\n").split("\n"))) + TAIL
    pathlib.Path(output).write_text(text, encoding="utf-8")
    if depfile:
        inputs = " ".join(str(path).replace(" ", "\\ ") for path in files)
        pathlib.Path(depfile).write_text(f"{output}: {inputs}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
