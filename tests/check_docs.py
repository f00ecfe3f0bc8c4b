"""Checks that README.md and docs/ show code that is compiled, what programs print, and link to
files that exist.

A C++ block follows a comment that names its source: the whole file, `<!-- from FILE -->`, or the
lines between `// [name]` and `// [/name]` in it, `<!-- from FILE [name] -->`. A block of what a
program of the build prints follows `<!-- printed by PROGRAM ARGUMENT... -->`.

With --write it updates the pages from these sources and programs.
"""
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "bench"))
import result_tables  # noqa: E402
import results  # noqa: E402
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
BLOCK = re.compile(
    r"(?:^<!-- (?:from (?P<file>\S+)(?: \[(?P<region>\w+)\])?|printed by (?P<program>[^\n]+?)) -->\n+)?"
    r"^```(?P<language>[^`\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def pages():
    return [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if page.exists()]


def blocks(text):
    """The fenced blocks of a page, as (line, match)."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start("code")), match


def region_of(text, name):
    """The lines between `// [name]` and `// [/name]`, without their common indentation."""
    match = re.search(rf"^ *// \[{name}\]\n(.*?)^ *// \[/{name}\]$", text, re.MULTILINE | re.DOTALL)
    return textwrap.dedent(match[1]) if match else None


def source_of(block):
    """The expected content of a block, or None if it names no source or a missing one."""
    if block["program"]:
        program, *words = block["program"].split()
        return subprocess.run([BUILD / program, *words], stdout=subprocess.PIPE, check=True,
                              timeout=60, text=True).stdout
    if not block["file"]:
        return None
    source = (ROOT / block["file"]).read_text(encoding="utf-8")
    return region_of(source, block["region"]) if block["region"] else source


def rewritten(text):
    """A page with every block updated from its source."""
    def block(match):
        source = source_of(match)
        whole, begin = match[0], match.start("code") - match.start()
        return whole if source is None else whole[:begin] + source + whole[match.end("code") -
                                                                           match.start():]
    return results.rewritten(BLOCK.sub(block, text))


class Docs(unittest.TestCase):
    maxDiff = None

    def test_every_cpp_block_names_its_source(self):
        for page in pages():
            for line, block in blocks(page.read_text(encoding="utf-8")):
                with self.subTest(f"{page.name}:{line}"):
                    self.assertFalse(block["language"] == "cpp" and not block["file"],
                                     "put <!-- from FILE --> or <!-- from FILE [name] --> above")

    def test_every_block_equals_its_source(self):
        for page in pages():
            for line, block in blocks(page.read_text(encoding="utf-8")):
                if not block["file"] and not block["program"]:
                    continue
                with self.subTest(f"{page.name}:{line}, {block[0].splitlines()[0]}"):
                    source = source_of(block)
                    self.assertIsNotNone(source, "the file has no such region")
                    self.assertEqual(source, block["code"], "./dev docs --write puts it right")

    def test_tables_of_results_are_those_of_their_logs(self):
        page = results.PAGE.read_text(encoding="utf-8")
        self.assertEqual(page, results.rewritten(page), "./dev docs --write puts it right")
        self.assertEqual({name for _, name, _ in results.MARK.findall(page)},
                         {table.name for table in result_tables.TABLES})

    def test_a_table_of_results_is_made_of_its_log(self):
        quantities = (result_tables.result("error", "error"),
                      result_tables.Quantity("per second", r"^([\d,]+) of it/s"),
                      result_tables.Quantity("perplexity", r"^diverged: (\S+)"))
        row = result_tables.Row("a cell", "program --cell a", "0.5", seeds=(1, 2, 3))
        lines = ["result: other = 9 (x)", "12,000 of it/s", "diverged: 1.5e49"]
        log = {f"program --cell a --seed {seed}": [*lines, f"result: error of it = {error} (y)",
                                                   f"took {seconds} s of a core"]
               for seed, error, seconds in ((1, 0.25, 10), (2, 0.75, 20))}
        text = results.table_text(result_tables.Table("t", quantities, (row,)), log)
        self.assertEqual(text.splitlines()[-1], "| a cell | 0.5 (0.25 to 0.75) | 12,000 | 1.5e+49 | 2 "
                         "| 15 s | 0.5 | `program --cell a` |")

    def test_links_lead_to_files(self):
        for page in pages():
            for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
                with self.subTest(f"{page.name}: {target}"):
                    self.assertTrue((page.parent / target).exists())

    def test_a_changed_block_is_noticed(self):
        page = "text\n<!-- from a.cpp [loop] -->\n```cpp\nfor (;;) {\n}\n```\n\n```cpp\nint i;\n```\n"
        (line, first), (next_line, second) = blocks(page)
        self.assertEqual((line, next_line), (3, 8))
        self.assertEqual(first.groups(), ("a.cpp", "loop", None, "cpp", "for (;;) {\n}\n"))
        self.assertEqual(second.groups(), (None, None, None, "cpp", "int i;\n"))
        source = "int main() {\n  // [loop]\n  for (;;) {\n  }\n  // [/loop]\n}\n"
        self.assertEqual(region_of(source, "loop"), first["code"])
        self.assertIsNone(region_of(source, "lo"))

    def test_what_a_program_prints_is_put_into_a_page(self):
        page = "<!-- printed by examples/gradient_checks {} -->\n```\n{}```\nrest\n"
        page = page.format("mean", "old\n") + page.format("model", "")
        (_, first), (_, second) = blocks(page)
        self.assertEqual(first["program"], "examples/gradient_checks mean")
        self.assertEqual(second["program"], "examples/gradient_checks model")
        new = rewritten(page)
        self.assertIn("mean -->\n```\ngradients: 1 of 1 checks failed\n", new)
        self.assertIn("\n```\nrest\n<!-- printed", new)
        self.assertTrue(new.endswith("```\ngradients: 0 of 18 checks failed\n```\nrest\n"))
        self.assertEqual(rewritten(new), new)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        unittest.main()
    for page in pages():
        old = page.read_text(encoding="utf-8")
        if rewritten(old) != old:
            page.write_text(rewritten(old), encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: rewritten")
