"""Makes the tables and the sections of pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mixjax.runner.pages.elements import Html, element, joined

__all__ = ["Cell", "facts", "sections", "table"]


class Cell(NamedTuple):
    """Holds a cell of a table that is sorted by a number, or has a style.

    Attributes:
        content: text or HTML.
        value: what the cell is sorted by; None puts it last, and "" sorts it by its text.
        style: a class of ``page.css``, or "".
    """

    content: Any
    value: float | str | None = ""
    style: str = ""


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str) -> Html:
    """Makes a table that is sorted by a press on the head of a column, also by keyboard.

    Args:
        header: names of the columns.
        rows: cells, texts or :class:`Cell`.
        caption: what the table shows, for those who hear the page.

    Returns:
        HTML; a table that is wider than the window scrolls by itself.
    """
    heads = [element("th", element("button", name, type="button"), aria_sort="none", scope="col") for name in header]
    body = [element("tr", *(_cell(cell) for cell in row)) for row in rows]
    inner = element("table", element("thead", element("tr", *heads)), element("tbody", *body))
    # A region that scrolls must be reached by keyboard.
    return element("div", inner, class_="wide", role="region", tabindex=0, aria_label=caption)


def _cell(cell: Any) -> Html:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    # What is no number at all, such as a mean of no seeds, is sorted last.
    value = "" if cell.value is None or cell.value != cell.value else cell.value
    is_number = cell.value is None or not isinstance(cell.value, str)
    return element("td", cell.content, class_=cell.style or None, data_value=value if is_number else None)


def facts(*texts: Sequence[Any]) -> Html:
    """Makes a row of short facts.

    Args:
        *texts: (number or word, what it counts).

    Returns:
        A list.
    """
    return element("ul", *(element("li", element("b", str(head)), " ", rest) for head, rest in texts), class_="facts")


def sections(parts: Sequence[tuple[str, str, Sequence[Html | None]]]) -> Html:
    """Puts sections below each other, with links to them in front.

    Args:
        parts: (id, heading, contents); a section without contents is left out.

    Returns:
        HTML.
    """
    kept = [(key, heading, [each for each in contents if each]) for key, heading, contents in parts]
    kept = [part for part in kept if part[2]]
    links = [element("li", element("a", heading, href=f"#{key}")) for key, heading, _ in kept]
    nav = element("nav", element("ul", *links), aria_label="Sections")
    return joined(nav, *(element("section", element("h2", head), *inner, id=key) for key, head, inner in kept))
