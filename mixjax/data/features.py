"""Turns columns of text into features: numbers standardised, categories one-hot, missing values marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["MISSING", "encode", "numbers_of"]

MISSING = ("", "?")
"""The texts that stand for a missing value."""


def encode(
    columns: Mapping[str, Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    logs: Sequence[str] = (),
    categories: Sequence[str] = (),
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turns columns of text into features.

    - A number becomes one feature of mean 0 and standard deviation 1, or 0 throughout if it is constant. A missing
      number takes the mean. If any is missing, a feature "NAME missing" of 0 and 1 says where.
    - A category becomes one feature of 0 and 1 for each of its values, in alphabetical order, with missing as a value
      of its own.

    The texts "" and "?" stand for a missing value. Mean and deviation are taken over all rows, test rows included, as
    where all inputs are known beforehand. Labels are not used.

    Args:
        columns: name -> one text a row.
        numbers: the columns that hold numbers.
        logs: the columns that hold non-negative amounts and counts, which are taken as log(1 + x).
        categories: the columns that hold categories.

    Returns:
        float32 features [n, d] and their d names.

    Raises:
        ValueError: if a column is not there, or a number cannot be read; names the column, the row and the text.

    Example:
        >>> features, names = encode({"age": ["30", "50", ""], "job": ["a", "?", "b"]}, numbers=["age"],
        ...                          categories=["job"])
        >>> names
        ('age', 'age missing', 'job=a', 'job=b', 'job missing')
        >>> features.round(2).tolist()
        [[-1.0, 0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0]]
    """
    unknown = [name for name in (*numbers, *logs, *categories) if name not in columns]
    if unknown:
        raise ValueError(f"columns {', '.join(map(repr, unknown))} are not there; known: {', '.join(columns)}")
    features: dict[str, np.ndarray] = {}
    for name in (*numbers, *logs):
        values = numbers_of(name, columns[name], logarithm=name in logs)
        missing = np.isnan(values)
        features[name] = _standardised(values, missing)
        if missing.any():
            features[f"{name} missing"] = missing
    for name in categories:
        column = np.array(["" if value in MISSING else value for value in columns[name]])
        for value in sorted(set(column) - {""}):
            features[f"{name}={value}"] = column == value
        if (column == "").any():
            features[f"{name} missing"] = column == ""
    return np.stack(list(features.values()), axis=1).astype(np.float32), tuple(features)


def numbers_of(name: str, column: Sequence[str], *, logarithm: bool) -> np.ndarray:
    """Reads a column of numbers.

    Args:
        name: the column's name in errors.
        column: one text a row.
        logarithm: True to return log(1 + x), for numbers of at least 0.

    Returns:
        float64 [n], NaN where the number is missing.

    Raises:
        ValueError: if a number cannot be read; names the column, the row and the text.
    """
    values = np.full(len(column), np.nan)
    for row, text in enumerate(column):
        if text not in MISSING:
            values[row] = _number(text, logarithm, f"column {name!r}, row {row}")
    return np.log1p(values) if logarithm else values


def _number(text: str, logarithm: bool, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{place}: expected a number, got {text!r}") from None
    if not np.isfinite(value) or (logarithm and value < 0):
        kind = "a number of at least 0" if logarithm else "a finite number"
        raise ValueError(f"{place}: expected {kind}, got {text!r}")
    return value


def _standardised(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Returns values with mean 0 and standard deviation 1, and 0 where they are missing."""
    known = values[~missing]
    if not known.size:
        return np.zeros(len(values))
    spread = known.std()
    scale = spread if spread > 0 else 1.0
    return np.where(missing, 0.0, (values - known.mean()) / scale)
