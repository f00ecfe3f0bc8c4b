"""Copies of the public headers as Doxygen reads their comments best.

A comment `///` also describes the functions that follow it without an empty line and without a
comment of their own; in a class, where the lines are of different functions, only its overloads.
One before `namespace` describes the header. Indented lines are equations or code. Doxygen has no
such rules, so that the copies say it in its own way. They are without the templates that are deleted
to refuse an argument, which it takes for functions that there are.
"""
import re

COMMENT = re.compile(r" */// ?(?!<)")
CODE_SPAN = re.compile(r"(`[^`]*`)")


def indentation(line):
    return len(line) - len(line.lstrip())


def escaped(text):
    """Text without what Doxygen would take for HTML or for a command."""
    parts = CODE_SPAN.split(text)
    parts[::2] = [re.sub(r"([\\<@#&])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def for_doxygen(comment, begin=""):
    """The lines of a comment, with `begin` before its text."""
    mark = comment[0][:indentation(comment[0])] + "///"
    result, within = [], False  # a block of equations
    for line in comment:
        text = line.strip()[3:].removeprefix(" ")
        if text.startswith("  ") != within and text:
            within = not within
            result.append("")
        result.append(" " * max(0, 4 - indentation(text)) + text if within and text else escaped(text))
    result[0] = begin + result[0]
    return [f"{mark} {text}".rstrip() for text in result]


def declaration_at(lines):
    """What begins in the first of these lines, up to its body or its end."""
    text = ""
    for line in lines:
        text += line.strip() + " "
        if re.search(r"[;{]", line):
            break
    return re.split(r"[;{]", re.sub(r"^(template <.*?> (?=[\w\[]))|\[\[.*?\]\] ", "", text))[0]


def function_name(declaration):
    """Of a function, an empty text for other declarations."""
    if re.match(r"\}|(using|struct|class|enum|friend|static_assert|namespace|requires|extern|#|return)\b",
                declaration):
        return ""
    found = re.match(r"[^=(]*?(operator *(?:\(\)|[^\s(]+)|~?\w+) *\(", declaration)
    return found[1] if found else ""


def without_refusals(lines):
    """The lines but those of deleted templates."""
    result, template = [], []
    for line in lines:
        if template or line.lstrip().startswith("template <"):
            template.append(line)
            if not re.search(r"[;{]", line.replace("{}", "")):
                continue
            line = "" if "= delete;" in line else "\n".join(template)
            template = []
            if not line:
                continue
        result.append(line)
    return "\n".join(result).splitlines()


def with_comments(text):
    """The text of a header, with the comments as Doxygen needs them."""
    lines, result = without_refusals(text.splitlines()), []
    comment, name = [], ""  # what describes the lines that follow, and the last function of these
    begins = True           # whether a declaration may begin in the next line
    for i, line in enumerate(lines):
        follows = i > 0 and COMMENT.match(lines[i - 1])
        if COMMENT.match(line):
            comment = [*comment, line] if follows else [line]
            begins = True
            continue
        if follows:
            result += for_doxygen(comment, "@file\n/// " if line.startswith("namespace reel") else "")
        if not line.strip() or line.lstrip().startswith("//"):
            comment = []
        if begins and comment and indentation(line) == indentation(comment[0]):
            new = function_name(declaration_at(lines[i:]))
            if not follows and new and (indentation(line) == 0 or new == name):
                result += for_doxygen(comment)
            name = new or name
        begins = line.endswith((";", "}", ":")) or not line.strip() or line.lstrip().startswith(("//", "#"))
        beside = re.match(r"(.*///< ?)(.*)", line)
        result.append(beside[1] + escaped(beside[2]) if beside else line)
    return "\n".join(result) + "\n"
