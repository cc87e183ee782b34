"""Tabulates the last value of each metric of a result, with intervals on one axis for each metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mixjax.runner.frames import final_values, finite_values, holds_numbers, label_texts
from mixjax.runner.pages.charts import interval
from mixjax.runner.pages.elements import Html, element
from mixjax.runner.pages.tables import Cell, table
from mixjax.runner.texts import mean_text
from mixjax.statistics import critical_value, mean_stderr, rounding_of
from mixjax.sweeps.arrays import as_computable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["final_tables"]

_MAX_ROWS, _MAX_TABLES = 40, 12


class _Row(NamedTuple):
    """Holds a row of a table: mean, standard error, half of the interval or NaN, and counts of seeds."""

    mean: float
    stderr: float
    half: float
    num_finite: int
    num_seeds: int


def final_tables(results: Mapping[str, xr.Dataset]) -> list[Html]:
    """Makes a table for each metric: a row for each run, axis value and text label.

    Args:
        results: run name -> metrics.

    Returns:
        Headings and tables, and a sentence on what is left out.
    """
    names = list(dict.fromkeys(str(name) for dataset in results.values() for name in dataset.data_vars))
    parts: list[Html] = []
    num_tables = 0
    for name in names:
        arrays = {run: data[name] for run, data in results.items() if name in data and "seed" in data[name].dims}
        arrays = {run: values for run, values in arrays.items() if holds_numbers(values)}
        if not arrays:
            continue
        num_tables += 1
        if num_tables <= _MAX_TABLES:
            parts += _table(name, arrays, several=len(results) > 1)
    if num_tables > _MAX_TABLES:
        note = f"{_MAX_TABLES} of {num_tables} metrics are shown; metrics.npz has all."
        parts.append(element("p", note, class_="notes"))
    return parts


def _table(name, arrays, *, several: bool) -> list[Html]:
    rows: list[tuple[dict[str, str], _Row]] = []
    total, at = 0, {}
    for run, values in arrays.items():
        final, taken = final_values(values)
        at |= taken
        dims = [str(dim) for dim in final.dims if dim != "seed"]
        total += math.prod(final.sizes[dim] for dim in dims)
        texts = {dim: label_texts(final, dim) for dim in dims}
        final = final.transpose(*dims, "seed")
        for index in itertools.islice(np.ndindex(*final.shape[:-1]), max(_MAX_ROWS - len(rows), 0)):
            labels = {dim: texts[dim][i] for dim, i in zip(dims, index, strict=True)}
            rows.append((({"run": run} if several else {}) | labels, _row(final, index)))
    unit = next(iter(arrays.values())).attrs.get("units", "")
    columns = list(dict.fromkeys(dim for labels, _ in rows for dim in labels))
    # One axis for all rows, so that their intervals can be compared.
    ends = [x for _, row in rows for x in (row.mean - row.half, row.mean + row.half, row.mean) if math.isfinite(x)]
    axis = (min(ends), max(ends)) if ends else None
    body = [[*(labels.get(dim, "") for dim in columns), *_cells(row, axis)] for labels, row in rows]
    where = ", ".join(f"{dim} {label}" for dim, label in at.items())
    heading = name + (f" [{unit}]" if unit else "") + (f" at {where}" if where else "")
    notes = f"{len(rows)} of {total} rows are shown; metrics.npz has all." if len(rows) < total else None
    header = [*columns, "interval", "mean ± standard error", "finite seeds"]
    return [
        element("h3", heading),
        table(header, body, caption=f"Last values of {name}"),
        *([element("p", notes, class_="notes")] if notes else []),
    ]


def _row(final, index) -> _Row:
    values = as_computable(final.values[index])
    # Without a warning where all values are infinite.
    finite = finite_values(final[index]).values
    mean, stderr, num = mean_stderr(values[finite], rounding_of(values[finite]) if finite.any() else 0.0)
    half = critical_value(2.0, num) * stderr if num > 1 else math.nan
    return _Row(float(mean), float(stderr), float(half), int(num), values.size)


def _cells(row: _Row, axis) -> list[Cell]:
    low, high = row.mean - row.half, row.mean + row.half
    drawn = interval(row.mean, low, high, at=None, ends=axis)
    seeds = f"{row.num_finite} of {row.num_seeds}"
    return [
        Cell(drawn or "", row.mean),
        Cell(mean_text(row.mean, row.stderr), row.mean, "number"),
        Cell(seeds, row.num_finite, "number" if row.num_finite == row.num_seeds else "number no"),
    ]
