"""A strict reader of HTML pages, for the tests of reports."""
import html.parser
import re

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADING = {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}


class Page(html.parser.HTMLParser):
    """Raises AssertionError where elements are not nested and closed properly, an id occurs twice
    or headings skip a level, and collects what the page holds."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.headings, self.rows = [], set(), [], []
        self.elements, self.references, self.loaded = [], [], []
        self.text, self.styles = "", ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        assert self.headings[0] == 1 and self.headings.count(1) == 1, self.headings
        for before, after in zip(self.headings, self.headings[1:]):
            assert after <= before + 1, self.headings
        missing = set(self.references) - self.ids
        assert not missing, f"no such id: {missing}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        values = dict(attrs)
        if "id" in values:
            assert values["id"] not in self.ids, f"id {values['id']} twice"
            self.ids.add(values["id"])
        for name in ("aria-labelledby", "aria-describedby"):
            self.references += (values.get(name) or "").split()
        href = values.get("href") or ""
        if href.startswith("#"):
            self.references.append(href[1:])
        elif href:
            self.loaded.append(href)
        self.loaded += [values[name] for name in LOADING & values.keys()]
        self.elements.append((tag, values))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> outside of SVG"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if "style" in self.open:
            self.styles += data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def luminance(colour):
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """As WCAG 2.1 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
