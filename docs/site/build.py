#!/usr/bin/env python3
"""Builds the documentation as a site, of the public headers and the guides: build.py BUILD OUTPUT

Doxygen makes the pages, from copies that it reads best. Fails where it warns, where a link of the
site leads nowhere, and where a class, a function or an enumeration is not documented; see
Api.has_to_be_documented. BUILD is configured by Meson, which knows the headers that are installed.
"""
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree

import guides
import headers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MESON = "/usr/bin/meson" if os.path.exists("/usr/bin/meson") else "meson"
PARTS = {"autograd": "Tensors, ops, the tape, gradients and their checks.",
         "nn": "Cells, layers, containers, generation and files of parameters.",
         "optim": "Optimizers, schedules, clipping, averages and the state of a run.",
         "datasets": "Texts, vocabularies, batches, readers of files and metrics."}
NAMESPACES = {"reel": PARTS["autograd"],
              **{f"reel::{part}": about for part, about in PARTS.items() if part != "autograd"},
              "reel::op": "Definitions of ops, what their parts see of a call, and the checks that they have to pass.",
              "reel::unit": "The language in which a cell is written; see reel/autograd/unit.h."}
# Installed as others include them, but nothing that a program would call.
INTERNAL = re.compile(r"reel/autograd/(kernels/|engine/(chunked|packed_factors|scope|segments|tape_stack)\.h)")
OPS = {"reel/autograd/ops.h", "reel/autograd/recurrent.h", "reel/autograd/sequence_losses.h"}
LANGUAGES = {".cpp", ".h", ".py"}
GUIDES = ["README.md", "docs/tutorial.md", "docs/recipes.md", "docs/cells.md", "docs/conventions.md",
          "docs/add_a_cell.md", "docs/add_an_op.md", "docs/gradient_checks.md", "docs/reproducibility.md",
          "docs/design.md", "docs/performance.md", "docs/results.md", "docs/reliability.md",
          "docs/migrating.md", "docs/packaging.md", "docs/conformance.md",
          "CONTRIBUTING.md", "CHANGELOG.md"]


def public_headers(build):
    """The installed headers of the parts, as (path in the tree, path to include)."""
    done = subprocess.run([MESON, "introspect", build, "--installed"], stdout=subprocess.PIPE, check=True)
    found = {}
    for source, place in json.loads(done.stdout).items():
        include = re.search(r"/include/(reel/(\w+)/.*\.h)$", place)
        if include and not INTERNAL.match(include[1]) and pathlib.Path(source).is_relative_to(ROOT / include[2]):
            found[pathlib.Path(source).relative_to(ROOT)] = include[1]
    return found


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def doxygen(work, **settings):
    """Runs it; returns its warnings."""
    log = work / "warnings.txt"
    settings = {"INPUT": work / "input", "OUTPUT_DIRECTORY": work, "STRIP_FROM_PATH": work / "input",
                "STRIP_FROM_INC_PATH": work / "input", "WARN_LOGFILE": log, **settings}
    lines = [f"{name} = {value}" for name, value in settings.items()]
    write(work / "Doxyfile", "\n".join([(HERE / "Doxyfile").read_text(), *lines, ""]))
    subprocess.run(["doxygen", work / "Doxyfile"], check=True)
    # It takes a template that ends by a specialization for one without an end.
    return [line.replace(f"{work}/input/", "") for line in log.read_text().splitlines()
            if line and "potential recursive class relation" not in line]


class Api:
    """What Doxygen found in the headers: what is `undocumented`, and for each header the names of its
    `contents`, with those of the classes whole."""

    def __init__(self, folder):
        compounds = [compound for path in sorted(folder.glob("*.xml"))
                     for compound in xml.etree.ElementTree.parse(path).getroot().iter("compounddef")]
        self.undocumented, self.contents = [], {}
        classes = [compound for compound in compounds if compound.get("kind") in ("class", "struct")
                   and compound.get("prot") == "public"]
        names = {re.split("::|<", compound.findtext("compoundname"))[-1] for compound in classes}
        for compound in classes:
            self.note(compound, compound.findtext("compoundname"))
            for member in compound.iter("memberdef"):
                if self.has_to_be_documented(member, names):
                    self.note(member, member.findtext("qualifiedname"), listed=False)
        for compound in compounds:
            if compound.get("kind") == "namespace":
                for member in compound.iter("memberdef"):
                    # What has the name of a class tells the compiler how to deduce its arguments.
                    if member.get("kind") in ("function", "enum") and member.findtext("name") not in names:
                        self.note(member, member.findtext("qualifiedname"))

    @staticmethod
    def has_to_be_documented(member, classes):
        """Of a class, unless it says itself what it does: a function without arguments, a constructor or
        an operator whose body is in the class."""
        name, arguments = member.findtext("name"), member.findtext("argsstring") or ""
        if (member.get("kind") != "function" or member.get("prot") != "public" or
                member.find("reimplements") is not None or re.match(r"~|operator=$", name) or
                re.search(r"&&\)|=\s*(delete|default)$", arguments)):
            return False
        plain = arguments.startswith("()") or name in classes or name.startswith("operator")
        return not (plain and member.find("location").get("bodystart"))

    def names(self):
        """What guides may call what they write about, and the full name: classes, without their
        namespace where they are the only ones of that name, and functions of tensors."""
        names, short = {}, {}
        for file, contents in self.contents.items():
            for name in dict.fromkeys(contents):
                last = name.split("::")[-1]
                if last[0].isupper():
                    short.setdefault(last, set()).add(name)
                if last[0].isupper() or "::" in name.removeprefix("reel::") or file in OPS:
                    names[name.removeprefix("reel::")] = name
        return {**{last: full.pop() for last, full in short.items() if len(full) == 1}, **names}

    def note(self, element, name, listed=True):
        described = "".join(text for tag in ("briefdescription", "detaileddescription")
                            for text in element.find(tag).itertext()).strip()
        location = element.find("location")
        file = location.get("declfile") or location.get("file")
        if not described:
            line = location.get("declline") or location.get("line")
            self.undocumented.append(f"{file}:{line}: {name} is not documented")
        if listed and "<" not in name and "operator" not in name:
            self.contents.setdefault(file, []).append(name)


def part_page(part, about, contents):
    """The page of a part: its headers and what they have."""
    rows = []
    for include in sorted(contents):
        if include.startswith(f"reel/{part}/"):
            names = ", ".join(f'@ref {name} "{re.sub("reel::|nn::|optim::|datasets::", "", name)}"'
                              for name in dict.fromkeys(contents[include]))
            rows.append(f'| @ref {include} "{include.removeprefix(f"reel/{part}/")}" | {names} |')
    return "\n".join([f"# {part} {{#part_{part}}}", about, "", "| header | what it has |", "|---|---|",
                      *rows, ""])


def source_page(path):
    """A page that shows a file of the tree."""
    include = "include{lineno}" if path.suffix in LANGUAGES else "verbinclude"
    return f"/** @page {guides.page_name(path)} {path}\n@{include} {path}\n*/\n"


def layout(titles):
    """Doxygen's layout with a menu of the guides and the parts."""
    def tab(page, title, kind="user"):
        return f'<tab type="{kind}" url="@ref {page}" title="{title}">'
    menu = ['<tab type="mainpage" title="Reel"/>', tab("part_guides", "Guides", "usergroup"),
            *(tab(page, title) + "</tab>" for page, title in titles.items()), "</tab>",
            *(tab(f"part_{part}", part) + "</tab>" for part in PARTS),
            '<tab type="classlist" title="Classes"/>']
    text = subprocess.run(["doxygen", "-l", "-"], stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout
    text = re.sub(r"<navindex>.*</navindex>", f"<navindex>{''.join(menu)}</navindex>", text, flags=re.DOTALL)
    return re.sub(r'<(namespaces|concepts) visible="yes" title=""/>', r'<\1 visible="no" title=""/>', text)


def drop_links_to_private(site):
    """Where a class has private classes alone, its page links to a list of classes that is not there."""
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        if 'href="#nested-classes"' in text and 'id="nested-classes"' not in text:
            path.write_text(re.sub(r'<a href="#nested-classes">Classes</a>( &#124;\n)?', "", text),
                            encoding="utf-8")


class Links(html.parser.HTMLParser):
    """The ids of a page, and what it links to and loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src", "data") and value:
                self.targets.add(value)


def dead_links(site):
    """The links within a site that lead nowhere, in pages and in the menu."""
    pages = {path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8"))
             for path in site.rglob("*.html")}
    targets = [(page, target) for page, links in pages.items() for target in links.targets]
    targets += [("menudata.js", target) for target in
                re.findall(r'url:"([^"]*)"', (site / "menudata.js").read_text(encoding="utf-8"))]
    targets += [(f"search/{path.name}", target) for path in (site / "search").glob("*.js") for target in
                re.findall(r"'(\.\./[^']*)'", path.read_text(encoding="utf-8"))]
    dead = []
    for page, target in sorted(targets):
        url = urllib.parse.urlsplit(target)
        if url.scheme or target.startswith("javascript:"):
            continue
        path = os.path.normpath(os.path.join(os.path.dirname(page), urllib.parse.unquote(url.path) or
                                             os.path.basename(page)))
        if not (site / path).is_file():
            dead.append(f"{page}: {target} leads nowhere")
        elif url.fragment and path in pages and urllib.parse.unquote(url.fragment) not in pages[path].ids:
            dead.append(f"{page}: {target} has no such anchor")
    return dead


def build(build_directory, output):
    """Returns what is wrong with the site."""
    work = output.with_name(output.name + "-work")
    for folder in (work, output):
        shutil.rmtree(folder, ignore_errors=True)
    includes = public_headers(build_directory)
    for source, include in includes.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        write(work / "input" / include, headers.with_comments(text))
    problems = doxygen(work, GENERATE_HTML="NO", GENERATE_XML="YES")
    api = Api(work / "xml")

    collection = guides.Guides(ROOT, [pathlib.Path(guide) for guide in GUIDES], includes, api.names())
    titles = {}
    for guide in collection.guides:
        text = collection.page(guide)
        name = guides.page_name(guide)
        titles[name] = re.match(r"# (.*?)( \{#|\n)", text)[1]
        write(work / "input" / f"{name}.md", text)
    for part, about in PARTS.items():
        write(work / "input" / f"part_{part}.md", part_page(part, about, api.contents))
    write(work / "input" / "part_guides.md", "\n".join(
        ["# Guides {#part_guides}", *(f"- @subpage {name}" for name in titles if name != "index"), ""]))
    namespaces = [f"/// @namespace {name}\n/// {about}\n" for name, about in NAMESPACES.items()]
    write(work / "input" / "pages.dox", "\n".join(
        namespaces + [source_page(source) for source in sorted(collection.sources)]))
    write(work / "layout.xml", layout({name: title for name, title in titles.items() if name != "index"}))
    extra = " ".join(str(ROOT / picture) for picture in sorted(collection.pictures))
    # File by file: the build directory within the tree has links that lead back to it.
    quoted = " ".join(str(ROOT / source) for source in sorted(collection.sources))
    problems += doxygen(work, LAYOUT_FILE=work / "layout.xml", HTML_OUTPUT=output, EXAMPLE_PATH=quoted,
                        USE_MDFILE_AS_MAINPAGE=work / "input" / "index.md", HTML_EXTRA_FILES=extra,
                        HTML_EXTRA_STYLESHEET=HERE / "style.css")
    drop_links_to_private(output)
    shutil.rmtree(work)
    return sorted(set(problems + collection.problems + api.undocumented + dead_links(output)))


if __name__ == "__main__":
    found = build(*(pathlib.Path(word).resolve() for word in sys.argv[1:]))
    print("\n".join(found), file=sys.stderr)
    sys.exit(1 if found else 0)
