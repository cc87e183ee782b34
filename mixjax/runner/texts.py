"""Writes texts for readers: numbers with their errors, verdicts on claims, tables for Markdown and for a terminal."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "ClaimText",
    "aligned",
    "claim_texts",
    "counted",
    "markdown_table",
    "mean_text",
    "seconds_text",
    "verdict",
    "weight_kind",
]


class ClaimText(NamedTuple):
    """Holds a claim as texts, in the order in which tables show them.

    Attributes:
        name: the claim's slug.
        holds: "yes", "no" or "undecided".
        value: such as "0.5 ± 0.12"; empty where there is no number.
        threshold: the number that the value is compared with; empty where there is none.
    """

    name: str
    holds: str
    value: str
    threshold: str


def verdict(holds: bool | None) -> str:
    """Puts a claim's verdict into a word.

    Args:
        holds: True, False, or None where the claim cannot be decided.

    Returns:
        "yes", "no" or "undecided".

    Example:
        >>> verdict(True), verdict(None)
        ('yes', 'undecided')
    """
    if holds is None:
        return "undecided"
    return "yes" if holds else "no"


def claim_texts(rows: Sequence[Mapping[str, Any]]) -> list[ClaimText]:
    """Puts claims into texts for a table: four digits of a value, two of its error.

    Args:
        rows: rows of ``claims.json``.

    Returns:
        One :class:`ClaimText` for each row, in order.

    Example:
        >>> claim_texts([{"name": "fgls", "holds": True, "value": 0.5, "stderr": 0.125, "threshold": 0.0}])
        [ClaimText(name='fgls', holds='yes', value='0.5 ± 0.12', threshold='0')]
    """
    texts = []
    for row in rows:
        value = _number(row["value"])
        if row["stderr"] is not None:
            value += f" ± {row['stderr']:.2g}"
        texts.append(ClaimText(row["name"], verdict(row["holds"]), value, _number(row["threshold"])))
    return texts


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def counted(number: int, one: str, several: str | None = None) -> str:
    """Writes a count with the word it needs, which is another one after 1.

    Args:
        number: the count.
        one: the word after 1.
        several: the word after any other number; ``one`` with an "s" when None.

    Returns:
        A text such as "1 run" or "1,200 runs".

    Example:
        >>> counted(1, "run"), counted(1200, "run"), counted(0, "does not", "do not")
        ('1 run', '1,200 runs', '0 do not')
    """
    several = f"{one}s" if several is None else several
    return f"{number:,} {one if number == 1 else several}"


def mean_text(mean: float, stderr: float) -> str:
    """Writes a mean and its standard error with as many decimals as two digits of the error need.

    The numbers in a column then show how precise they are. :func:`claim_texts` takes four digits instead, since its
    claims have different units.

    Args:
        mean: the mean; NaN gives "-".
        stderr: its standard error, at least 0; NaN leaves the error out.

    Returns:
        A text such as "2.81 ± 0.18".

    Example:
        >>> mean_text(2.8094, 0.1795), mean_text(0.25, float("nan")), mean_text(3.2e-9, 1e-10)
        ('2.81 ± 0.18', '0.25', '3.2e-09 ± 1e-10')
    """
    if np.isnan(mean):
        return "-"
    # Not `stderr <= 0`: this holds for NaN too.
    if not stderr > 0:
        error = " ± 0" if stderr == 0 else ""
        return f"{mean:.4g}{error}"
    decimals = max(1 - int(np.floor(np.log10(stderr))), 0)
    # For such numbers, a text with fixed decimals would be mostly zeros.
    if decimals > 6 or abs(mean) >= 1e7:
        return f"{mean:.4g} ± {stderr:.2g}"
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Formats a table in Markdown.

    Args:
        header: the columns' names.
        rows: one sequence of cells for each row, one cell for each column. Bars in a cell are escaped, and its line
            breaks become spaces.

    Returns:
        The lines of the table.

    Example:
        >>> markdown_table(["claim", "holds"], [["fgls", "yes"]])
        ['| claim | holds |', '| --- | --- |', '| fgls | yes |']
    """
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(_markdown_cell(cell) for cell in line) + " |" for line in lines]


def _markdown_cell(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats rows of cells for a terminal, each column as wide as its widest cell.

    Args:
        rows: one sequence of cells for each row, all of one length. The header is a row like the others.

    Returns:
        One line for each row.

    Example:
        >>> aligned([["claim", "holds"], ["fgls_wins", "yes"]])
        ['claim      holds', 'fgls_wins  yes']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def seconds_text(seconds: float) -> str:
    """Writes a time in the unit that a reader would choose.

    Args:
        seconds: at least 0.

    Returns:
        The text.

    Example:
        >>> seconds_text(7.0), seconds_text(301.0), seconds_text(9000.0), seconds_text(260_000.0)
        ('7 s', '5.02 min', '2.5 h', '3.01 d')
    """
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def weight_kind(metric: str, *, by_domain: bool) -> str:
    """Tells by its name whether a metric holds loss weights or sampling weights.

    Args:
        metric: its name, such as "loss_weights" or "run.sampling_weight".
        by_domain: whether it has a dimension of domains; the short names "c", "q" and "weights" mean nothing without.

    Returns:
        "c" for loss weights, "q" for sampling weights, or "".

    Example:
        >>> [weight_kind(name, by_domain=True) for name in ("loss_weights", "q", "losses")]
        ['c', 'q', '']
    """
    if re.search(r"loss_?weight", metric) or (by_domain and metric in ("c", "weight", "weights")):
        return "c"
    if re.search(r"sampling_?weight", metric) or (by_domain and metric == "q"):
        return "q"
    return ""
