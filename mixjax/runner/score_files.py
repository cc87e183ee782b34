"""Reads CSV files of scores by site, as spreadsheets of any country write them, or says why it cannot."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mixjax.checks import requires

with requires("experiments", "mixjax.runner.score_files"):
    import pandas as pd

__all__ = ["COLUMNS", "read_scores"]

COLUMNS = {
    "site": ("centre", "center", "hospital", "scanner", "institution"),
    "case": ("patient", "subject", "patient_id", "subject_id", "case_id", "id"),
    "method": ("model", "weighting"),
    "score": ("dice", "dsc", "value", "metric"),
}
"""The columns that a table must have, and what others call them."""

_SEPARATORS = ",;\t"
# What is written where a score is missing, in lower case.
_MISSING = ("", "nan", "na", "n/a")


class _Row(NamedTuple):
    """Holds the fields of a row, and the line of the file on which it ends."""

    line: int
    fields: list[str]


def read_scores(path: str | Path) -> pd.DataFrame:
    """Reads a CSV file of scores for :func:`mixjax.runner.sites.site_report`.

    An empty score is a missing one, and so are "nan", "NA" and "n/a". Columns may be separated by commas, semicolons or
    tabs. With the latter two a score may have a decimal comma, as spreadsheets write in many languages. Fields in
    quotes may hold the separator. Spaces around a field are dropped, and so are empty lines and a first line ``sep=;``.

    Nothing is guessed where some scores have a comma and some a point: one of them may be a thousands separator.

    Args:
        path: the file.

    Returns:
        The columns of the file, texts but for ``score``.

    Raises:
        ValueError: a score that is no number, scores with commas and with points, a row with more or fewer fields than
            the first line, a column that stands twice, or a file that is no table of UTF-8 text; names the line.
        OSError: a file that cannot be read.
    """
    try:
        # Line ends stay as they are, for csv knows those within quotes.
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
        separator, header, rows = _table(text)
    except ValueError as error:
        raise ValueError(f"{path}: scores must be a CSV file in UTF-8: {error}") from error
    # Names stay texts: a site called "NA" is not a missing one, and case "007" is not 7.
    frame = pd.DataFrame([row.fields for row in rows], columns=header, dtype=str)
    if "score" in frame:
        lines = [row.line for row in rows]
        try:
            frame["score"] = _numbers(frame["score"], lines, separator)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return frame


def _table(text: str) -> tuple[str, list[str], list[_Row]]:
    """Returns the separator, the names of the columns, and the rows below them."""
    # As Excel takes it: a first line that names the separator.
    named = re.match(r"\s*sep=([,;\t])\s*[\r\n]", text, re.IGNORECASE)
    if named:
        separator, num_skipped = named[1], 1
    else:
        separator, num_skipped = max(_SEPARATORS, key=lambda each: _merit(text, each)), 0
    rows = list(_rows(text, separator))[num_skipped:]
    if not rows:
        raise ValueError("it is empty.")
    header = _cut(rows[0].fields, 0)
    if len(header) == 1:
        raise ValueError(f"columns must be separated by commas, semicolons or tabs, got the first line {header[0]!r}.")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise ValueError(f"each column must have a name of its own, got {twice[0]!r} twice.")
    rows = [_Row(line, _cut(fields, len(header))) for line, fields in rows[1:]]
    for line, fields in rows:
        if len(fields) != len(header):
            hint = "; decimal commas need semicolons or tabs between the columns" if separator == "," else ""
            raise ValueError(f"the first line has {len(header)} fields, and line {line} has {len(fields)}{hint}.")
    return separator, header, rows


def _rows(text: str, separator: str, strict: bool = True) -> Iterator[_Row]:
    """Cuts a text into rows of fields without the spaces around them, and leaves empty rows out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=strict, skipinitialspace=True)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield _Row(reader.line_num, fields)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _cut(fields: list[str], least: int) -> list[str]:
    """Leaves out empty fields at the end, which spreadsheets write where a cell to the right was used once."""
    end = len(fields)
    while end > least and not fields[end - 1]:
        end -= 1
    return fields[:end]


def _merit(text: str, separator: str) -> tuple[int, int]:
    """Says how well a separator fits, by the first line: how many columns have known names, and how many there are."""
    first = next(_rows(text, separator, strict=False), _Row(0, []))
    known = {other for name, others in COLUMNS.items() for other in (name, *others)}
    return sum(name.lower() in known for name in first.fields), len(first.fields)


def _numbers(scores: Any, lines: list[int], separator: str) -> Any:
    """Returns scores as numbers, NaN where one is missing."""
    known = scores.str.lower()
    known = known.mask(known.isin(_MISSING), "nan")
    if separator != ",":
        _check_one_mark(scores, lines)
        known = known.str.replace(",", ".")
    # For type checkers, which take what pandas returns for several types at once.
    numbers: Any = pd.to_numeric(known, errors="coerce")
    wrong = (numbers.isna() & (known != "nan")).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        has_comma = separator == "," and "," in scores[row]
        hint = " (decimal commas need semicolons or tabs between the columns)" if has_comma else ""
        raise ValueError(f"score must be a number{hint}, got {scores[row]!r} in line {lines[row]}.")
    return numbers


def _check_one_mark(scores: Any, lines: list[int]) -> None:
    """Raises a ValueError where some scores have a comma and some a point: one of them may be a thousands separator."""
    is_like_number = scores.str.fullmatch(r"[-+\d.,e]+", case=False)
    commas, points = ((is_like_number & scores.str.contains(mark, regex=False)).to_numpy() for mark in ",.")
    if commas.any() and points.any():
        rows = dict.fromkeys((int(commas.argmax()), int(points.argmax())))
        told = " and ".join(f"{scores[row]!r} in line {lines[row]}" for row in rows)
        raise ValueError(f"scores must have one decimal mark and no thousands separator, got {told}.")
