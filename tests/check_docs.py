"""Checks that README.md and docs/ show code that is compiled, and link to files that exist.

A C++ block follows a comment that names its source: the whole file, `<!-- from FILE -->`, or the
lines between `// [name]` and `// [/name]` in it, `<!-- from FILE [name] -->`.
"""
import pathlib
import re
import textwrap
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(?:^<!-- from (?P<file>\S+)(?: \[(?P<region>\w+)\])? -->\n+)?"
    r"^```(?P<language>[^`\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def pages():
    return [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if page.exists()]


def blocks(text):
    """The fenced blocks of a page, as (line, file or None, region or None, language, code)."""
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        yield line, match["file"], match["region"], match["language"], match["code"]


def region_of(text, name):
    """The lines between `// [name]` and `// [/name]`, without their common indentation."""
    match = re.search(rf"^ *// \[{name}\]\n(.*?)^ *// \[/{name}\]$", text, re.MULTILINE | re.DOTALL)
    return textwrap.dedent(match[1]) if match else None


class Docs(unittest.TestCase):
    maxDiff = None

    def test_every_cpp_block_names_its_source(self):
        for page in pages():
            for line, file, _, language, _ in blocks(page.read_text(encoding="utf-8")):
                with self.subTest(f"{page.name}:{line}"):
                    self.assertFalse(language == "cpp" and not file,
                                     "put <!-- from FILE --> or <!-- from FILE [name] --> above")

    def test_every_block_equals_its_source(self):
        for page in pages():
            for line, file, region, _, code in blocks(page.read_text(encoding="utf-8")):
                if not file:
                    continue
                with self.subTest(f"{page.name}:{line} from {file} {region or ''}"):
                    source = (ROOT / file).read_text(encoding="utf-8")
                    if region:
                        source = region_of(source, region)
                        self.assertIsNotNone(source, f"{file} has no region // [{region}]")
                    self.assertEqual(source, code)

    def test_links_lead_to_files(self):
        for page in pages():
            for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
                with self.subTest(f"{page.name}: {target}"):
                    self.assertTrue((page.parent / target).exists())

    def test_a_changed_block_is_noticed(self):
        page = "text\n<!-- from a.cpp [loop] -->\n```cpp\nfor (;;) {\n}\n```\n\n```cpp\nint i;\n```\n"
        (first, second) = blocks(page)
        self.assertEqual(first, (3, "a.cpp", "loop", "cpp", "for (;;) {\n}\n"))
        self.assertEqual(second, (8, None, None, "cpp", "int i;\n"))
        source = "int main() {\n  // [loop]\n  for (;;) {\n  }\n  // [/loop]\n}\n"
        self.assertEqual(region_of(source, "loop"), first[-1])
        self.assertIsNone(region_of(source, "lo"))


if __name__ == "__main__":
    unittest.main()
