"""Finds the metrics of a result that are curves, such as weights over time, and puts them into charts.

A metric is a curve where one of its own dimensions counts something: "step", "time" and their like, or else the longest
one with numbers for labels. Its dimensions decide what its curves are, and its name says whether it holds weights:
nothing here knows an experiment.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.runner.frames import column_names, finite_values, holds_numbers, holds_text, label_texts
from mixjax.runner.pages.charts import Chart, Series
from mixjax.runner.texts import weight_kind
from mixjax.statistics import critical_value
from mixjax.sweeps.arrays import as_computable

with requires("experiments", "mixjax.runner.pages.curves"):
    import xarray as xr

__all__ = ["Curves", "all_curves", "domain_dim"]

# A page of so many curves and points stays below three megabytes.
_MAX_CURVES, _MAX_POINTS, _MAX_PLACES = 1000, 25_000, 200
_MAX_CHARTS, _MAX_SERIES = 24, 20

_WORDS = {"c": "Loss weights c", "q": "Sampling weights q"}

# Dimensions that are time, whatever others a metric has.
_TIMES = r"(^|_)(step|time|round|epoch|update|iteration)s?$"


class Curves(NamedTuple):
    """Holds the charts of one metric.

    Attributes:
        metric: its name.
        kind: "c" for loss weights, "q" for sampling weights, "domain" for what else is measured by domain, or "".
        heading: what it is called on the page.
        names: names of the curves, in the order of their colours.
        charts: the charts.
        notes: sentences about what is not shown.
    """

    metric: str
    kind: str
    heading: str
    names: list[str]
    charts: list[Chart]
    notes: list[str]


class _Layout(NamedTuple):
    """Says which dimension of a metric is drawn how."""

    time: str
    series: str | None
    panels: tuple[str, ...]


def domain_dim(values: xr.DataArray) -> str | None:
    """Returns the dimension of domains, which is named "domain" or ends so, such as "grid_domain"; None without one."""
    return next((str(dim) for dim in values.dims if re.fullmatch(r"(.*_)?domains?", str(dim))), None)


def all_curves(results: Mapping[str, xr.Dataset]) -> list[Curves]:
    """Puts all curves of a result into charts: loss weights first, then sampling weights, then the rest.

    A curve is the mean over the seeds that are finite there, with the interval that judges claims (see
    :func:`mixjax.statistics.critical_value`) for a band.

    Args:
        results: run name -> metrics.

    Returns:
        One item for each metric that is a curve; those beyond what a page holds have no charts, and say so.
    """
    names = dict.fromkeys(str(name) for dataset in results.values() for name in dataset.data_vars)
    found: list[tuple[str, str, dict[str, xr.DataArray]]] = []
    for name in names:
        arrays = {run: dataset[name] for run, dataset in results.items() if name in dataset}
        arrays = {run: values for run, values in arrays.items() if holds_numbers(values) and _layout(values)}
        if arrays:
            found.append((name, _kind(name, next(iter(arrays.values()))), arrays))
    found.sort(key=lambda item: ("c", "q", "domain", "").index(item[1]))
    left = _MAX_CURVES
    chosen = []
    for name, kind, arrays in found:
        charts = _Panels.of(arrays, several=len(results) > 1)
        shown = charts.limited(left)
        left -= shown.num_curves
        chosen.append((name, kind, arrays, charts, shown))
    num_curves = sum(shown.num_curves for *_, shown in chosen)
    places = min(max(_MAX_POINTS // max(num_curves, 1), 2), _MAX_PLACES)
    return [_drawn(name, kind, arrays, charts, shown, places) for name, kind, arrays, charts, shown in chosen]


def _layout(values: xr.DataArray) -> _Layout | None:
    """Decides how a metric is drawn; None where it is no curve."""
    dims = [str(dim) for dim in values.dims]
    if "seed" not in dims:
        return None
    own = dims[dims.index("seed") + 1 :]
    domain = domain_dim(values)
    counting = [dim for dim in own if dim != domain and values.sizes[dim] > 1 and not _has_texts(values, dim)]
    named = [dim for dim in counting if re.search(_TIMES, dim)]
    # Without a name that tells, the longest one; two places are no curve.
    longest = [dim for dim in sorted(counting, key=lambda dim: -values.sizes[dim]) if values.sizes[dim] > 2]
    time = next(iter([*named, *longest]), None)
    if time is None:
        return None
    others = [dim for dim in dims if dim not in ("seed", time) and values.sizes[dim] > 1]
    texts = [dim for dim in others if _has_texts(values, dim)]
    # Curves of domains belong together; else those of methods, else those of an axis.
    candidates = [*([domain] if domain in others else []), *[d for d in texts if d in own], *texts, *others]
    series = next(iter(candidates), None)
    return _Layout(time, series, tuple(dim for dim in others if dim != series))


def _has_texts(values: xr.DataArray, dim: str) -> bool:
    return dim in values.coords and holds_text(values[dim])


def _kind(name: str, values: xr.DataArray) -> str:
    by_domain = domain_dim(values) is not None
    # The share of one of two domains is a weight too.
    return weight_kind(name, by_domain=by_domain) or ("domain" if by_domain else "")


class _Panels(NamedTuple):
    """Lists the charts of a metric: (run, places along the dimensions of panels), and the names of its curves."""

    charts: list[tuple[str, dict[str, int]]]
    names: list[str]
    several: bool

    @classmethod
    def of(cls, arrays: dict[str, xr.DataArray], *, several: bool) -> _Panels:
        charts = [(run, index) for run, values in arrays.items() for index in _indices(values, _require(values).panels)]
        return cls(charts, list(dict.fromkeys(name for values in arrays.values() for name in _names(values))), several)

    @property
    def num_curves(self) -> int:
        return len(self.charts) * len(self.names)

    def limited(self, curves: int) -> _Panels:
        """Keeps as many charts and curves as a page holds."""
        names = self.names[:_MAX_SERIES]
        return _Panels(self.charts[: min(_MAX_CHARTS, curves // max(len(names), 1))], names, self.several)


def _require(values: xr.DataArray) -> _Layout:
    layout = _layout(values)
    assert layout is not None, "only metrics with a layout come here"
    return layout


def _names(values: xr.DataArray) -> list[str]:
    """Returns the names of a metric's curves, those with the largest peaks first where not all are shown."""
    layout = _require(values)
    texts = _labels(values, layout.series)
    if len(texts) <= _MAX_SERIES:
        return texts
    # The first and the last time are enough to tell which ones matter, and cheap.
    ends = values.isel({layout.time: [0, -1]}).transpose(layout.series, ...)
    peaks = np.nan_to_num(as_computable(ends.values).reshape(len(texts), -1).astype(float), posinf=0.0, neginf=0.0)
    return [texts[i] for i in np.argsort(-peaks.max(axis=1), kind="stable")]


def _indices(values: xr.DataArray, dims: Sequence[str]) -> Iterator[dict[str, int]]:
    for index in itertools.product(*(range(values.sizes[dim]) for dim in dims)):
        yield dict(zip(dims, index, strict=True))


def _drawn(
    name: str, kind: str, arrays: Mapping[str, xr.DataArray], panels: _Panels, shown: _Panels, places: int
) -> Curves:
    first = next(iter(arrays.values()))
    charts = []
    thinned = False
    for run, index in shown.charts:
        values = arrays[run].isel(index)
        layout = _require(arrays[run])
        size = values.sizes[layout.time]
        if size > places:
            thinned = True
            values = values.isel({layout.time: np.unique(np.linspace(0, size - 1, places).round().astype(int))})
        charts.append(_chart(_title(run, arrays[run], index, several=panels.several), values, layout, shown.names))
    notes = []
    if len(shown.charts) < len(panels.charts):
        notes.append(f"{len(shown.charts)} of {len(panels.charts)} charts are shown; metrics.npz has all.")
    if len(shown.names) < len(panels.names):
        notes.append(f"{len(shown.names)} of {len(panels.names)} curves are shown in each chart, the largest ones.")
    if thinned:
        notes.append(f"Of longer curves {places} points are shown.")
    unit = first.attrs.get("units", "")
    words = _WORDS.get(kind, name)
    heading = words + (f" [{unit}]" if unit else "") + ("" if domain_dim(first) is None else " by domain")
    return Curves(name, kind, heading, shown.names, charts, notes)


def _title(run: str, values: xr.DataArray, index: dict[str, int], *, several: bool) -> str:
    parts = [_labels(values, dim)[place] for dim, place in index.items()]
    return ", ".join([run, *parts] if several else parts)


def _chart(title: str, values: xr.DataArray, layout: _Layout, names: Sequence[str]) -> Chart:
    series = layout.series
    own = _labels(values, series)
    # What is left has one place along every other dimension.
    rest = [dim for dim in values.dims if dim not in ("seed", layout.time, series)]
    values = values.isel(dict.fromkeys(rest, 0))
    values = values.expand_dims("curve") if series is None else values
    values = values.transpose(series or "curve", "seed", layout.time)
    curves = []
    for number, name in enumerate(names):
        if name in own:
            one = values[own.index(name)]
            curves.append(Series(name, *_band(one), number))
    x = _numbers(values, layout.time)
    return Chart(title, layout.time, x, curves)


def _labels(values: xr.DataArray, dim: str | None) -> list[str]:
    """Writes the labels of a dimension for readers who do not see its name; without one, the metric's name."""
    if dim is None:
        return [str(values.name)]
    texts = label_texts(values, dim)
    speaks_for_itself = dim == domain_dim(values) or _has_texts(values, dim) or column_names(values, dim)
    return texts if speaks_for_itself else [f"{dim} {text}" for text in texts]


def _numbers(values: xr.DataArray, dim: str) -> np.ndarray:
    labels = values[dim].values if dim in values.coords else np.arange(values.sizes[dim])
    return np.asarray(labels, np.float64)


def _band(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean, lower and upper end over the finite seeds, ``[points]`` each; NaN where there are too few."""
    finite = finite_values(values).values
    numbers = np.where(finite, as_computable(values.values).astype(np.float64), 0.0)
    count = finite.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(count > 0, numbers.sum(axis=0) / np.maximum(count, 1), np.nan)
        squares = (np.where(finite, numbers - mean, 0.0) ** 2).sum(axis=0)
        stderr = np.sqrt(squares / np.maximum(count - 1, 1) / np.maximum(count, 1))
        factors = {int(n): critical_value(2.0, int(n)) for n in np.unique(count) if n > 1}
        half = stderr * np.array([factors.get(int(n), np.nan) for n in count])
        return mean, mean - half, mean + half
