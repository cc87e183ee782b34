"""Writes the page of a comparison: differences with their intervals, drawn on one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixjax.runner.pages.charts import interval
from mixjax.runner.pages.elements import document, element, joined
from mixjax.runner.pages.tables import Cell, sections, table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["comparison_page"]


def comparison_page(
    title: str,
    where: str,
    differences: pd.DataFrame,
    cells: Sequence[Sequence[str]],
    *,
    notes: Sequence[str],
    settings: Sequence[str] = (),
) -> str:
    """Writes a comparison over paired seeds as a page.

    Args:
        title: what is compared with what.
        where: what the values were taken from, and which labels were settled.
        differences: as :func:`mixjax.runner.comparison.paired_table` returns it.
        cells: the same as texts, the header first, with a column "difference".
        notes: sentences about the numbers.
        settings: lines on the settings at which labels were compared.

    Returns:
        HTML, one file that loads nothing.
    """
    header, *rows = cells
    place = header.index("difference")
    ends = [x for x in np.ravel(differences[["low", "high", "difference"]].to_numpy(float)) if math.isfinite(x)]
    # One axis for all rows, with zero on it.
    axis = (min([0.0, *ends]), max([0.0, *ends]))
    body = []
    for texts, (_, row) in zip(rows, differences.iterrows(), strict=True):
        drawn = interval(float(row.difference), float(row.low), float(row.high), at=0.0, ends=axis)
        body.append(
            [
                *(Cell(text, _label_value(text)) for text in texts[: place - 2]),
                Cell(texts[place - 2], float(row.value), "number"),
                Cell(texts[place - 1], float(row.baseline), "number"),
                Cell("" if drawn is None else drawn, float(row.difference)),
                Cell(texts[place], float(row.difference), "number"),
                *(_statistic(text) for text in texts[place + 1 :]),
            ]
        )
    columns = [*header[:place], "95 % interval", *header[place:]]
    explained = "A bar is the 95 % interval of the mean difference over paired seeds; the dashed mark is zero."
    settled = [element("p", joined(*(part for line in settings for part in (line, element("br")))))] if settings else []
    parts = [
        ("settings", "Settings", settled),
        ("table", "Differences", [element("p", explained), table(columns, body, caption="Differences")]),
        ("notes", "Notes", [element("ul", *(element("li", note) for note in notes))] if notes else []),
    ]
    head = [element("h1", title), element("p", where, class_="soft")]
    return document(f"{title} - mixjax", *head, sections(parts))


def _statistic(text: str) -> Cell:
    """Returns a cell that is sorted by its number, or by its text where it is a word, such as a verdict."""
    return Cell(text) if text.isalpha() else Cell(text, _number(text), "number")


def _number(text: str) -> float:
    """Returns the number a cell begins with, such as 3 of "3 of 4, 1 tie"; NaN where there is none."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return math.nan


def _label_value(text: str) -> float | str:
    """Returns the number that a label is, by which it is sorted, or "" for a text."""
    try:
        return float(text)
    except ValueError:
        return ""
