"""The runs of a sweep: which hyperparameters and seed each has, and in which order they are computed."""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["Labels", "Runs", "pieces", "random_points"]


class Labels(list):
    """Strings whose positions are those among given names, not of their first appearance; an axis or a column.

    Args:
        values: the strings.
        names: all that there can be, in the order in which ``train`` counts them.

    Raises:
        ValueError: one is not among the names, or a name occurs twice.

    Example:
        >>> Labels(["fgls", "erma", "fgls"], names=["erma", "fgls"]).positions
        [1, 0, 1]
    """

    def __init__(self, values: Sequence[str], names: Sequence[str]):
        """Looks each one up."""
        super().__init__(values)
        self.names, known = list(names), {name: i for i, name in enumerate(names)}
        if len(known) < len(self.names) or not set(self) <= set(known):
            raise ValueError(f"labels must be among names that all differ, got {list(values)}, names {self.names}.")
        self.positions = [known[value] for value in self]


def random_points(space: Mapping[str, Sequence], num: int, seed: int = 0) -> dict[str, list]:
    """Draws points for :func:`mixjax.sweep`'s ``points``, each hyperparameter independently.

    Args:
        space: for each hyperparameter either ``("linear" | "log" | "integer", low, high)``, drawn uniformly between the
            two (for "log" uniformly in the logarithm, for "integer" both included), or a list of numbers or of strings
            to choose from.
        num: number of points, at least 1.
        seed: of the draws.

    Returns:
        Columns of ``num`` values; strings as :class:`Labels`, so that ``train`` gets their positions in the list.

    Raises:
        ValueError: a list that is empty or mixed, bounds in the wrong order or not finite, a log scale that starts at
            or below 0, bounds of integers that are none or exceed 64 bits, ``num`` below 1.

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
            chosen = [choices[i] for i in random.integers(len(choices), size=num)]
            if len(kinds := {isinstance(choice, str) for choice in choices}) > 1:
                if isinstance(choices, tuple) and isinstance(choices[0], str):
                    raise ValueError(f"{name}: unknown scale {choices[0]!r}; known: 'linear', 'log', 'integer'.")
                raise ValueError(f"{name}: needs strings or numbers only, got {choices}.")
            columns[name] = Labels(chosen, dict.fromkeys(choices)) if True in kinds else chosen
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

    Raises:
        ValueError: no seeds, seeds beyond 32 bits, an empty axis or column, columns of different lengths, values that
            are not all numbers or all strings or that JAX's types cannot hold.

    Example:
        >>> runs = Runs({"gamma": [0.1, 1.0]}, {}, seeds=3, first_seed=5)
        >>> runs.num, runs.dims, runs.seeds.tolist()
        (6, ('gamma', 'seed'), [5, 6, 7, 5, 6, 7])
    """

    def __init__(self, axes: Mapping[str, Sequence], points: Mapping[str, Sequence], seeds: int, first_seed: int):
        """Checks the points and lays out the runs."""
        self.axes = {name: _plain(name, values) for name, values in axes.items()}
        self.points = {name: _plain(name, values) for name, values in points.items()}
        seeds, first_seed = operator.index(seeds), operator.index(first_seed)
        if seeds < 1 or not all([*self.axes.values(), *self.points.values()]):
            raise ValueError(f"seeds, every axis and every column of points need at least 1, got {seeds=}, {axes=}.")
        lengths = {name: len(values) for name, values in self.points.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of points need one length, got {lengths}.")
        if first_seed < 0 or first_seed + seeds > 2**32:
            raise ValueError(f"seeds must lie in 0 to 2**32 - 1, got {first_seed=}, {seeds=}.")
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
            columns[name] = np.broadcast_to(_array(name, values).reshape(shape), self.shape).ravel()
        self.names_of = {
            n: values.names for n, values in (self.axes | self.points).items() if isinstance(values, Labels)
        }
        labels = list(self.names_of)
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

    def joined(self, name: str, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> np.ndarray:
        """A metric of all runs in the order of the result, ``[*shape, ...]``, from chunks that cover them."""
        one = next(iter(chunks.values()))[name]
        values = np.empty((self.num, *one.shape[1:]), one.dtype)
        for first, metrics in chunks.items():
            values[self._order[first : first + len(metrics[name])]] = metrics[name]
        return values.reshape(*self.shape, *one.shape[1:])

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


def pieces(first: int, stop: int, rows: int) -> list[tuple[int, int]]:
    """A range cut into pieces.

    Args:
        first: its first number.
        stop: the number behind its last one.
        rows: of a piece, at most.

    Returns:
        ``(first, stop)`` of each piece.

    Example:
        >>> pieces(3, 10, 4)
        [(3, 7), (7, 10)]
    """
    return [(a, min(a + rows, stop)) for a in range(first, stop, rows)]


def _plain(name, values):
    """As Python's own numbers, or labels."""
    if isinstance(values, str) or np.ndim(values := values if isinstance(values, Labels) else list(values)) != 1:
        raise ValueError(f"{name}: needs a list of numbers or of strings, got {values!r}.")
    if isinstance(values, Labels):
        return values
    values = [value.item() if hasattr(value, "item") else value for value in values]
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"{name}: values must be all strings or all numbers, got {values}.")
    return Labels(values, dict.fromkeys(values)) if values and isinstance(values[0], str) else values


def _array(name, values):
    """Labels as their positions; numbers in JAX's own types, of 32 bits unless ``jax_enable_x64``."""
    if isinstance(values, Labels):
        return np.array(values.positions, np.int32)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: needs numbers that fit 64 bits, got {values}.")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(jax.dtypes.canonicalize_dtype(array.dtype if array.dtype.kind != "u" else np.int64))
    same = cast == array if array.dtype.kind != "f" else np.isfinite(cast) | ~np.isfinite(array)
    if not same.all():
        raise ValueError(f"{name}: {array[~same][0]} does not fit {cast.dtype}.")
    return cast
