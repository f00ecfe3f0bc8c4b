"""Copies of README.md and docs/*.md as Doxygen reads them best: with an anchor for every heading,
and links that lead to pages of the site."""
import os
import pathlib
import re

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
CODE_SPAN = re.compile(r"(`[^`\n]*`)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


def page_name(path):
    """The name of the page for a file of the tree; README.md is the first page."""
    return "index" if str(path) == "README.md" else re.sub(r"\W", "_", str(path))


def slug(heading):
    """The anchor that is made of a heading where the file is read on its own."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchor(path, fragment):
    return f"{page_name(path)}__{re.sub(r'[^a-zA-Z0-9_-]', '_', fragment)}"


class Guides:
    """Turns guides into pages. Collects the other files that they link to: `sources`, which are to
    become pages, and `pictures`."""

    def __init__(self, root, guides, headers, names):
        self.root, self.guides, self.headers, self.names = root, guides, headers, names
        self.sources, self.pictures, self.problems = set(), set(), []
        self.slugs = {path: {slug(heading) for _, heading in HEADING.findall(
            FENCE.sub("", (root / path).read_text(encoding="utf-8")))} for path in guides}

    def target(self, page, file, fragment, text):
        """What a link leads to, as Markdown."""
        path = pathlib.Path(os.path.normpath(page.parent / file)) if file else page
        if not (self.root / path).exists():
            self.problems.append(f"{page}: there is no {path}")
        elif path in self.guides:
            if fragment and fragment not in self.slugs[path]:
                self.problems.append(f"{page}: there is no heading #{fragment} in {path}")
            return f"[{text}](@ref {anchor(path, fragment) if fragment else page_name(path)})"
        elif path in self.headers:
            return f'@ref {self.headers[path]} "{text}"'
        elif (self.root / path).is_file():
            self.sources.add(path)
            return f"[{text}](@ref {page_name(path)})"
        return text  # a folder

    def picture(self, page, file, text):
        path = pathlib.Path(os.path.normpath(page.parent / file))
        if not (self.root / path).is_file():
            self.problems.append(f"{page}: there is no picture {path}")
        self.pictures.add(path)
        return f'<img src="{path.name}" alt="{text}">'

    def prose(self, page, text):
        """Text between blocks of code."""
        def link(match):
            mark, words, file, fragment = match.groups()
            if mark:
                return self.picture(page, file, words)
            return self.target(page, file, fragment, words)

        def heading(match):
            marks, words = match.groups()
            name = page_name(page) if marks == "#" else anchor(page, slug(words))
            label = "" if name == "index" else f" {{#{name}}}"
            contents = "\n[TOC]\n" if marks == "#" and len(self.slugs[page]) > 5 else ""
            return f"{marks} {words.replace('`', '')}{label}{contents}"

        text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
        lines = []
        for line in HEADING.sub(heading, LINK.sub(link, text)).split("\n"):
            if not line.startswith("    "):  # code
                parts = CODE_SPAN.split(line)
                parts[::2] = [re.sub(r"<(?!img |br>)", r"\\<", part) for part in parts[::2]]
                for i in range(1, len(parts), 2):
                    words = parts[i].strip("`")
                    if words.removesuffix("()") in self.names and not parts[i - 1].endswith("["):
                        parts[i] = f'<code>@ref {self.names[words.removesuffix("()")]} "{words}"</code>'
                line = "".join(parts)
            lines.append(line)
        return "\n".join(lines)

    def page(self, path):
        """The page of a guide."""
        text = (self.root / path).read_text(encoding="utf-8")
        result, end = "", 0
        for block in FENCE.finditer(text):
            result += self.prose(path, text[end:block.start()])
            language, code = block[0][3:].split("\n", 1)
            result += f"```{{.{language}}}\n{code}" if language else block[0]
            end = block.end()
        return result + self.prose(path, text[end:])
