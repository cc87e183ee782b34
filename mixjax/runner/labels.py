"""Splits a sweep over labels, such as the names of methods, into one sweep for each label, and joins their results.

A label decides what a run computes, so that each one is compiled by itself, as a ``[[run]]`` is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.runner.configs import Config, Run, replace
from mixjax.runner.configs.fields import field_type, is_label, label_names
from mixjax.sweeps import Labels

with requires("experiments", "mixjax.runner.labels"):
    import xarray as xr

__all__ = ["Part", "joined", "parts_of"]


class Part(NamedTuple):
    """Holds the part of a run's sweep that shares all labels.

    Attributes:
        title: the run's name, with the labels.
        values: the experiment's dataclass; its fields hold the part's labels.
        axes: field name -> values. An axis of labels has one value, and ``train`` gets its position among all of them.
        points: field name -> column, with the points of these labels only.
        numbers: the places of these points among all points of the sweep.
    """

    title: str
    values: Any
    axes: dict[str, Sequence]
    points: dict[str, Sequence]
    numbers: list[int]


def parts_of(config: Config, run: Run) -> list[Part]:
    """Splits the sweep of a run by its labels.

    Args:
        config: the config, for its sweep.
        run: one of its runs.

    Returns:
        A part for each combination of labels, in the order of the axes and then of the points; a single part where the
        sweep has no labels.
    """
    axes: dict[str, Any] = dict(config.sweep.axes)
    points: dict[str, Any] = dict(config.sweep.points)
    fields = {name: field_type(type(run.values), name) for name in axes | points}
    labelled = [name for name, hint in fields.items() if is_label(hint)]
    # A Literal has an order of its own, which stays the same in every sweep.
    known = {name: label_names(fields[name]) or list(dict.fromkeys((axes | points)[name])) for name in labelled}
    columns = [name for name in labelled if name in points]

    num_points = len(next(iter(points.values()), ()))
    # The labels of each point; all points share one key where no column holds labels.
    keys = [tuple(points[name][i] for name in columns) for i in range(num_points)]
    parts = []
    for along in itertools.product(*(axes[name] for name in labelled if name in axes)):
        for key in dict.fromkeys(keys) or [()]:
            numbers = [i for i, other in enumerate(keys) if other == key]
            labels = dict(zip([*(name for name in labelled if name in axes), *columns], [*along, *key], strict=True))
            own_axes: dict[str, Sequence] = {
                n: Labels([labels[n]], known[n]) if n in labels else values for n, values in axes.items()
            }
            own_points: dict[str, Sequence] = {n: [column[i] for i in numbers] for n, column in points.items()}
            own_points |= {n: Labels(own_points[n], known[n]) for n in columns}
            title = ", ".join([run.name, *(f"{name}={label}" for name, label in labels.items())])
            parts.append(Part(title, replace(run.values, labels), own_axes, own_points, numbers))
    return parts


def joined(parts: Sequence[Part], datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Joins the results of a run's parts into the result of its whole sweep.

    Args:
        parts: as :func:`parts_of` returns them.
        datasets: the metrics of each.

    Returns:
        The metrics, with one dimension for each axis. Counts and times are the sums over the parts.
    """
    if len(parts) == 1:
        return datasets[0]
    names = [name for name, values in parts[0].axes.items() if isinstance(values, Labels)]
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, part in enumerate(parts):
        groups.setdefault(tuple(part.axes[name][0] for name in names), []).append(number)
    found = {}
    for key, group in groups.items():
        found[key] = _with_all_points([parts[i] for i in group], [datasets[i] for i in group])
    # The last axis first: what is joined then shares all labels before it.
    while names:
        outer: dict[tuple[str, ...], list[xr.Dataset]] = {}
        for key, dataset in found.items():
            outer.setdefault(key[:-1], []).append(dataset)
        name = names.pop()
        found = {key: _concatenated(inner, name) for key, inner in outer.items()}
    return found[()].assign_attrs(_sums(datasets))


def _with_all_points(parts: Sequence[Part], datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Joins parts that differ in the labels of their points, and puts the points in the order of the sweep."""
    if len(parts) == 1:
        return datasets[0]
    order = np.argsort([number for part in parts for number in part.numbers])
    whole = _concatenated(datasets, "point").isel(point=order)
    return whole.assign_coords(point=np.arange(len(order)))


def _concatenated(datasets: Sequence[xr.Dataset], dim: str) -> xr.Dataset:
    # Nothing but the coordinates along this dimension differs, and metrics that differ in shape are an error.
    return xr.concat(
        datasets, dim, data_vars="minimal", coords="minimal", compat="override", join="exact", combine_attrs="override"
    )


def _sums(datasets: Sequence[xr.Dataset]) -> Mapping[str, Any]:
    counts = ("num_runs", "num_computed", "compile_seconds", "run_seconds")
    return {key: sum(dataset.attrs[key] for dataset in datasets) for key in counts}
