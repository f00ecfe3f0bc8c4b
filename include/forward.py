#!/usr/bin/env python3
"""Makes #include <reel/FOLDER/NAME.h> work in this tree: forward.py OUTPUT TREE FOLDER...

For every header in these folders of TREE it writes a one-line file under OUTPUT/reel/ that includes
it. Meson calls it when the build is configured. Symbolic links would be simpler, but not every
system and archive format preserves them.
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
