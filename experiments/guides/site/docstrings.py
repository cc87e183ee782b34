r"""Turns the reST of docstrings into the Markdown that the site is made of.

Docstrings have few kinds of reST, and each has a function here: roles, equations, tables, literal blocks, and sections
that Google style does not know. Sections such as ``Args`` are left to mkdocstrings. Equations become the ``\(x\)`` and
``$$x$$`` of arithmatex.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = ["to_markdown"]

_ROLE = re.compile(r":(func|class|meth|attr|data|mod|exc):`~?([^`]+)`")
_RULE = re.compile(r" *=+(?: +=+)+ *$")
# A section title, and the entries of a section that lists names.
_SIGNALS = re.compile(r" *Signals:$")
_ENTRY = re.compile(r"( +)(\w+(?:, \w+)*): ")


def to_markdown(text: str, link: Callable[[str, str], str | None]) -> str:
    """Converts a docstring.

    Args:
        text: the docstring, without its indentation.
        link: the kind of a role, such as "func", and its target -> the id of what it names on the site, or None where
            the site has no such id.

    Returns:
        Markdown, with sections in Google style.
    """
    lines = text.splitlines()
    for convert in (_equations, _tables, _literal_blocks, _examples, _signals):
        lines = list(convert(lines))
    text = re.sub(r":math:`([^`]*)`", lambda found: f"\\({found[1]}\\)", "\n".join(lines))

    def linked(found: re.Match[str]) -> str:
        kind, name = found.groups()
        target = link(kind, name)
        return f"``{name}``" if target is None else f"[``{name}``][{target}]"

    # A role may be broken over two lines.
    return _ROLE.sub(linked, re.sub(r":(\w+):`([^`\n]*)\n +([^`\n]*)`", r":\1:`\2 \3`", text))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list[str], start: int, above: int) -> int:
    """Returns where the block ends that begins at a line and is indented by more than ``above``."""
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > above):
        end += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _equations(lines: list[str]) -> Iterator[str]:
    i = 0
    while i < len(lines):
        line = lines[i]
        if not line.lstrip().startswith(".. math::"):
            yield line
            i += 1
            continue
        end = _block(lines, i + 1, _indent(line))
        formula = "\n".join([line.partition("::")[2], *lines[i + 1 : end]])
        margin = " " * _indent(line)
        # Blank lines separate equations.
        for equation in re.split(r"\n\s*\n", formula.strip()):
            yield from ("", f"{margin}$$", f"{margin}{' '.join(equation.split())}", f"{margin}$$", "")
        i = end


def _tables(lines: list[str]) -> Iterator[str]:
    i = 0
    while i < len(lines):
        if not _RULE.match(lines[i]):
            yield lines[i]
            i += 1
            continue
        starts = [found.start() for found in re.finditer(r"=+", lines[i])]
        last = max(k for k in range(i, len(lines)) if _RULE.match(lines[k]) and _is_one_table(lines, i, k))
        rows = [_cells(line, starts) for line in lines[i : last + 1] if not _RULE.match(line) and line.strip()]
        margin = " " * starts[0]
        yield ""
        for number, row in enumerate(rows):
            yield f"{margin}| {' | '.join(row)} |"
            if number == 0:
                yield f"{margin}|{'---|' * len(row)}"
        yield ""
        i = last + 1


def _is_one_table(lines: list[str], first: int, last: int) -> bool:
    """Tells whether no more than the rule below the header stands between two rules, and no blank line."""
    between = lines[first + 1 : last]
    return sum(bool(_RULE.match(line)) for line in between) <= 1 and all(line.strip() for line in between)


def _cells(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(line)]
    return [line[start:end].strip().replace("|", "\\|") for start, end in zip(starts, ends, strict=True)]


def _literal_blocks(lines: list[str]) -> Iterator[str]:
    i = 0
    while i < len(lines):
        line = lines[i]
        if not line.endswith("::") or line.lstrip().startswith(".."):
            yield line
            i += 1
            continue
        # A line of its own that says "::" says nothing to a reader.
        if line.strip() != "::":
            yield line[:-1]
        end = _block(lines, i + 1, _indent(line))
        # Without the blank lines between the text and the block.
        start = next((k for k in range(i + 1, end) if lines[k].strip()), end)
        block = lines[start:end]
        margin = min((_indent(one) for one in block if one.strip()), default=0)
        fence = " " * _indent(line) + "```"
        # TOML is the other language of docstrings; its tables and comments read alike.
        language = "toml" if any(re.match(r"\s*\[+[\w.]+\]+$", one) for one in block) else "python"
        yield from ("", f"{fence}{language}")
        yield from (" " * _indent(line) + one[margin:] for one in block)
        yield from (fence, "")
        i = end


def _examples(lines: list[str]) -> Iterator[str]:
    """Yields the lines with examples under the title that mkdocstrings knows, and others in blocks of code."""
    in_section = in_code = False
    for line in lines:
        title = re.match(r"( *)(Examples?|[A-Z]\w+):$", line)
        if title:
            in_section = title[2].startswith("Example")
            line = f"{title[1]}Examples:" if in_section else line
        starts = line.lstrip().startswith(">>>")
        if starts and not in_section and not in_code:
            in_code = True
            yield " " * _indent(line) + "```pycon"
        elif in_code and not line.strip():
            in_code = False
            yield "```"
        yield line
    if in_code:
        yield "```"


def _signals(lines: list[str]) -> Iterator[str]:
    """Yields the lines with the entries of ``Signals`` as a list, since only mixjax's docstrings have this section."""
    section = None
    for line in lines:
        if _SIGNALS.match(line):
            section = _indent(line)
        elif line.strip() and section is not None and _indent(line) <= section:
            section = None
        entry = _ENTRY.match(line) if section is not None else None
        if entry and section is not None and len(entry[1]) == section + 4:
            line = f"{entry[1]}- `{entry[2]}`: {line[entry.end() :]}"
        yield line
