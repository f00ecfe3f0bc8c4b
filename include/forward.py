#!/usr/bin/env python3
"""Makes #include <reel/FOLDER/NAME.h> true in this tree: forward.py OUTPUT TREE FOLDER...

Meson calls it when the build is configured. Every header of the folders of TREE gets a file of one
line under OUTPUT/reel/, which includes it. Links would do the same, but not every system and not
every archive keeps them.
"""
import os
import pathlib
import sys


def main():
    output, tree = map(pathlib.Path, sys.argv[1:3])
    headers = {output / "reel" / header.relative_to(tree): header
               for folder in sys.argv[3:] for header in (tree / folder).rglob("*.h")}
    for stale in set((output / "reel").rglob("*.h")) - set(headers):
        stale.unlink()
    for forward, header in headers.items():
        path = pathlib.Path(os.path.relpath(header, forward.parent)).as_posix()
        line = f'#include "{path}"\n'
        if not forward.exists() or forward.read_text(encoding="utf-8") != line:
            forward.parent.mkdir(parents=True, exist_ok=True)
            forward.write_text(line, encoding="utf-8")


main()
