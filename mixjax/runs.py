"""The runs of a sweep: which hyperparameters and seed each has, and in which order they are computed."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["Runs", "pieces", "random_points"]


def random_points(space: Mapping[str, Sequence], num: int, seed: int = 0) -> dict[str, list]:
    """Draws points for :func:`mixjax.sweep`'s ``points``, each hyperparameter independently.

    Args:
        space: for each hyperparameter either ``("linear" | "log" | "integer", low, high)``, drawn uniformly between the
            two (for "log" uniformly in the logarithm, for "integer" both included), or a list of values to choose from.
        num: number of points, at least 1.
        seed: of the draws.

    Returns:
        Columns of ``num`` values.

    Raises:
        ValueError: an empty list, bounds in the wrong order or not finite, a log scale that starts at or below 0,
            bounds of integers that are none or exceed 64 bits, ``num`` below 1.

    Example:
        >>> points = random_points({"gamma": ("log", 1e-4, 1.0), "rule": ["erma", "fgls"]}, num=3, seed=1)
        >>> points
        {'gamma': [0.0111503, 0.633658, 0.000377258], 'rule': ['fgls', 'fgls', 'erma']}
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    random, columns = np.random.default_rng(seed), {}
    for name, choices in space.items():
        if isinstance(choices, tuple) and len(choices) == 3 and choices[0] in ("linear", "log", "integer"):
            scale, low, high = choices
            if not (low <= high and math.isfinite(high - low)) or (scale == "log" and low <= 0):
                raise ValueError(f"{name}: needs low <= high, both finite, for 'log' above 0, got {choices}.")
            if scale == "integer":
                if int(low) != low or int(high) != high or not -(2**63) <= low <= high < 2**63:
                    raise ValueError(f"{name}: needs integers of 64 bits, got {choices}.")
                columns[name] = random.integers(int(low), int(high), num, endpoint=True).tolist()
            elif scale == "log":
                columns[name] = _short(np.exp(random.uniform(np.log(low), np.log(high), num)), low, high)
            else:
                columns[name] = _short(random.uniform(low, high, num), low, high)
        elif len(choices):
            columns[name] = [choices[i] for i in random.integers(len(choices), size=num)]
        else:
            raise ValueError(f"{name}: no values to choose from.")
    return columns


def _short(values, low, high):
    """Six digits are enough for a random number, and can be read; rounding does not leave the bounds."""
    return [float(min(max(float(f"{value:.6g}"), low), high)) for value in values]


class Runs:
    """Points times seeds, in the order in which they are computed: runs that share their labels stand together.

    Args:
        axes: name -> values; the grid.
        points: name -> column; the list of points.
        seeds: number of seeds.
        first_seed: the first one.
    """

    def __init__(self, axes: Mapping[str, Sequence], points: Mapping[str, Sequence], seeds: int, first_seed: int):
        """Checks the points and lays out the runs."""
        self.axes = {name: _plain(values) for name, values in axes.items()}
        self.points = {name: _plain(values) for name, values in points.items()}
        if seeds < 1 or not all([*self.axes.values(), *self.points.values()]):
            raise ValueError(f"seeds, every axis and every column of points need at least 1, got {seeds=}, {axes=}.")
        lengths = {name: len(values) for name, values in self.points.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of points need one length, got {lengths}.")
        seed_values = np.arange(first_seed, first_seed + seeds, dtype=np.uint32)

        self.dims = (*self.axes, *["point"][: len(lengths)], "seed")
        self.shape = (*map(len, self.axes.values()), *list(lengths.values())[:1], seeds)
        self.coords: dict[str, Any] = {**self.axes, "seed": seed_values.astype(int)}
        if lengths:
            self.coords["point"] = np.arange(self.shape[-2])
            self.coords |= {name: ("point", values) for name, values in self.points.items()}
        self.names = [*self.axes, *self.points, *["point"][: len(lengths)], "seed"]

        columns = {}
        for name, values in (self.axes | self.points).items():
            dim = self.dims.index(name if name in self.axes else "point")
            shape = [-1 if i == dim else 1 for i in range(len(self.shape))]
            columns[name] = np.broadcast_to(_array(values).reshape(shape), self.shape).ravel()
        labels = [name for name, values in (self.axes | self.points).items() if isinstance(values[0], str)]
        self.num = math.prod(self.shape)
        keys = [columns[name] for name in reversed(labels)]  # lexsort's last key counts first; ties keep their order
        self._order = np.lexsort(keys) if keys else np.arange(self.num)
        columns = {name: column[self._order] for name, column in columns.items()}
        self.seeds = np.broadcast_to(seed_values, self.shape).ravel()[self._order]
        self.batched = {name: column for name, column in columns.items() if name not in labels}
        self._labels = {name: columns[name] for name in labels}
        changes = [np.flatnonzero(np.diff(column)) + 1 for column in self._labels.values()]
        self._bounds = [0, *sorted({int(i) for change in changes for i in change}), self.num]
        self.largest_group = int(np.diff(self._bounds).max())

    @property
    def batched_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One run's numeric hyperparameters."""
        return {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in self.batched.items()}

    @property
    def label_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The positions of its labels."""
        return {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in self._labels.items()}

    def covered(self, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> np.ndarray:
        """Which runs are in chunks, first run -> metrics."""
        done = np.zeros(self.num, bool)
        for first, metrics in chunks.items():
            done[first : first + len(next(iter(metrics.values())))] = True
        return done

    def labels(self, first: int) -> dict[str, np.ndarray]:
        """The labels' positions of run ``first`` and of those it shares a chunk with."""
        return {name: column[first] for name, column in self._labels.items()}

    def chunks(self, done: np.ndarray, rows: int) -> list[tuple[int, int]]:
        """``(first, stop)`` of the runs not done, ``rows`` at most, never across labels."""
        todo = np.flatnonzero(~done)
        edges = np.flatnonzero(np.diff(todo, prepend=-2) > 1)  # where a stretch of runs to do starts
        chunks = []
        for i, start in enumerate(edges):
            stretch = todo[start : edges[i + 1] if i + 1 < len(edges) else None]
            first, stop = int(stretch[0]), int(stretch[-1]) + 1
            cuts = [first, *[bound for bound in self._bounds if first < bound < stop], stop]
            for a, b in itertools.pairwise(cuts):
                chunks += pieces(a, b, rows)
        return chunks

    def unsorted(self, values: np.ndarray) -> np.ndarray:
        """From the order of computation to that of the result, ``[runs, ...]``."""
        result = np.empty_like(values)
        result[self._order] = values
        return result


def pieces(first: int, stop: int, rows: int) -> list[tuple[int, int]]:
    """``range(first, stop)`` cut into ``(first, stop)`` of at most ``rows``."""
    return [(a, min(a + rows, stop)) for a in range(first, stop, rows)]


def _plain(values):
    """As Python's own numbers and strings, all of one kind."""
    values = [value.item() if hasattr(value, "item") else value for value in values]
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"values must be all strings or all numbers, got {values}.")
    return values


def _array(values):
    """Labels as their positions, in order of appearance; numbers as 32-bit ones."""
    if isinstance(values[0], str):
        position = {value: i for i, value in enumerate(dict.fromkeys(values))}
        return np.array([position[value] for value in values], np.int32)
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        return array if array.dtype == bool else array.astype(np.float32)
    if np.abs(array).max() >= 2**31:
        raise ValueError(f"integers of an axis must fit 32 bits, got {values}.")
    return array.astype(np.int32)
