"""Lists the runs of a sweep: the hyperparameters and the seed of each, and the order in which they are computed."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixjax.sweeps.arrays import num_runs
from mixjax.sweeps.points import Labels, as_array, as_values
from mixjax.sweeps.vectors import label_name, own_dims, texts

__all__ = ["Part", "Runs", "pieces"]


class Part(NamedTuple):
    """Holds what distinguishes the runs of one chunk.

    Args:
        seeds: uint32 ``[runs]``.
        hparams: hyperparameter -> numbers ``[runs]``, of vectors ``[runs, ...]``.
        labels: hyperparameter -> the label's position ``[]``, the same for all of these runs.
    """

    seeds: np.ndarray
    hparams: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class Runs:
    """Lists the runs of a sweep, points times seeds.

    There are two orders. The result has the axes first, then the points, then the seeds. The computation sorts the runs
    by their labels, so that the runs of a chunk can share them; a run's number is its place in this order.

    Args:
        axes: name -> values; the grid.
        points: name -> column; the list of points.
        seeds: number of seeds.
        first_seed: the first seed.
        paired: whether all points have the same seeds; else every run has a seed of its own, counted from the first one
            in the order of the result.

    Attributes:
        axes: name -> values, as :func:`mixjax.sweeps.points.as_values` returns them.
        points: name -> column, as :func:`mixjax.sweeps.points.as_values` returns it.
        num: number of runs.
        dims: names of the result's first dimensions.
        shape: sizes of these dimensions.
        names: names of the axes, the columns and the dimensions; no metric may have one of them.
        label_names: hyperparameter of labels -> all names, in the order of their positions.
        coords: coordinate -> values, or -> (dimensions, values). A vector has two coordinates along its axis or its
            points: the numbers, with dimensions of their own, and a text in one dimension, ``"<name>_label"``, which
            stays with each metric.
        own_sizes: dimension of a vector -> its size.
        first_seed: the first seed.
        paired: whether all points have the same seeds.
        seeds: each run's seed, ``[num]``.
        batched: hyperparameter of numbers -> each run's value, ``[num]`` or of vectors ``[num, ...]``.
        largest_group: the largest number of runs that share their labels.

    Raises:
        TypeError: ``axes`` or ``points`` is no dictionary, or a number of seeds no integer.
        ValueError: no seeds, seeds beyond 32 bits, an empty axis or column, columns of different lengths, values that
            are not all numbers, all strings or all vectors of one shape, or that JAX's types cannot hold.

    Example:
        >>> runs = Runs({"gamma": [0.1, 1.0]}, {}, seeds=3, first_seed=5)
        >>> runs.num, runs.dims, runs.seeds.tolist()
        (6, ('gamma', 'seed'), [5, 6, 7, 5, 6, 7])
        >>> Runs({"gamma": [0.1, 1.0]}, {}, seeds=3, first_seed=5, paired=False).seeds.tolist()
        [5, 6, 7, 8, 9, 10]
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence],
        points: Mapping[str, Sequence],
        seeds: int,
        first_seed: int,
        paired: bool = True,
    ):
        """Checks the values, and puts the runs in order."""
        for argument, columns in (("axes", axes), ("points", points)):
            if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns):
                raise TypeError(f"{argument} must be a dictionary from names to lists of values, got {columns!r}.")
        self.axes = {name: as_values(name, values) for name, values in axes.items()}
        self.points = {name: as_values(name, values) for name, values in points.items()}
        try:
            seeds, first_seed = operator.index(seeds), operator.index(first_seed)
        except TypeError:
            raise TypeError(f"seeds and first_seed must be integers, got {seeds=}, {first_seed=}.") from None
        if seeds < 1 or not all([*self.axes.values(), *self.points.values()]):
            raise ValueError(f"seeds, every axis and every column of points need at least 1, got {seeds=}, {axes=}.")
        lengths = {name: len(values) for name, values in self.points.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of points need one length, got {lengths}.")
        if not isinstance(paired, (bool, np.bool_)):
            raise TypeError(f"paired must be True or False, got {paired!r}.")
        self.first_seed, self.paired = first_seed, bool(paired)
        self._name_dimensions(seeds)
        num_seeds = seeds if paired else self.num
        if first_seed < 0 or first_seed + num_seeds > 2**32:
            each = "" if paired else f", a seed for each of {self.num} runs"
            raise ValueError(f"seeds must lie in 0 to 2**32 - 1, got {first_seed=}, {seeds=}{each}.")
        self._order_runs(np.arange(first_seed, first_seed + num_seeds, dtype=np.uint32))

    def _name_dimensions(self, seeds):
        """Sets the dimensions of the result and their coordinates."""
        dims, shape = list(self.axes), [len(values) for values in self.axes.values()]
        # Where every run has a seed of its own, no number names those of a column of the result.
        self.coords: dict[str, Any] = {"seed": np.arange(seeds) + (self.first_seed if self.paired else 0)}
        self.own_sizes: dict[str, int] = {}
        # A name may be here twice: clashes are looked for when the names of the metrics are known.
        self.names = []
        for name, values in self.axes.items():
            self._add_coordinate(name, name, values)
        if self.points:
            num_points = len(next(iter(self.points.values())))
            dims.append("point")
            shape.append(num_points)
            self.names.append("point")
            self.coords["point"] = np.arange(num_points)
            for name, values in self.points.items():
                self._add_coordinate(name, "point", values)
        self.names.append("seed")
        self.dims, self.shape = (*dims, "seed"), (*shape, seeds)
        self.num = math.prod(self.shape)

    def _add_coordinate(self, name, dim, values):
        """Adds the coordinate of one hyperparameter along a dimension of the result; two coordinates of a vector."""
        own = own_dims(name, values)
        self.names += [name, *own]
        self.own_sizes |= dict(zip(own, np.shape(values[0]), strict=True))
        self.coords[name] = ((dim, *own), values)
        if own:
            # A metric does not have the vector's own dimensions, so that xarray drops the numbers where one metric is
            # taken from the result. The text tells its points apart there.
            self.names.append(label_name(name))
            self.coords[label_name(name)] = (dim, texts(values))

    def _order_runs(self, seed_values):
        """Sets the order of computation, and each run's seed and hyperparameters in it."""
        values = self.axes | self.points
        columns = {}
        for name in values:
            dim = self.dims.index(name if name in self.axes else "point")
            column = as_array(name, values[name])
            own = column.shape[1:]
            # A column varies along its own dimension, and is the same along all others.
            shape = [1] * len(self.shape)
            shape[dim] = len(column)
            column = np.broadcast_to(column.reshape(*shape, *own), (*self.shape, *own))
            columns[name] = column.reshape(self.num, *own)

        self.label_names = {name: column.names for name, column in values.items() if isinstance(column, Labels)}
        if self.label_names:
            # lexsort's last key counts first; runs with equal labels keep their order.
            self._order = np.lexsort([columns[name] for name in reversed(list(self.label_names))])
        else:
            self._order = np.arange(self.num)
        # From here on in the order of computation.
        columns = {name: column[self._order] for name, column in columns.items()}
        every = np.broadcast_to(seed_values, self.shape) if self.paired else seed_values
        self.seeds = every.ravel()[self._order]
        self.batched = {name: column for name, column in columns.items() if name not in self.label_names}
        self._labels = {name: columns[name] for name in self.label_names}

        # The numbers of the runs at which a label changes: no chunk may reach across one.
        changes: set[int] = set()
        for column in self._labels.values():
            changes |= set((np.flatnonzero(np.diff(column)) + 1).tolist())
        self._bounds = [0, *sorted(changes), self.num]
        self.largest_group = int(np.diff(self._bounds).max())

    @property
    def batched_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Describes one run's hyperparameters that are numbers or vectors, by shape and dtype."""
        return {name: jax.ShapeDtypeStruct(column.shape[1:], column.dtype) for name, column in self.batched.items()}

    @property
    def label_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Describes the positions of one run's labels, by shape and dtype."""
        return {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in self._labels.items()}

    def labels(self, number: int) -> dict[str, np.ndarray]:
        """Returns the positions of the labels of run ``number``, which all runs of its chunk share."""
        return {name: column[number] for name, column in self._labels.items()}

    def place(self, number: int) -> dict[str, int]:
        """Returns where run ``number`` stands in the result: dimension -> position along it."""
        positions = np.unravel_index(self._order[number], self.shape)
        return {dim: int(position) for dim, position in zip(self.dims, positions, strict=True)}

    def values(self, number: int) -> dict[str, Any]:
        """Returns the hyperparameters of run ``number`` as the user gave them: numbers, strings, lists of vectors."""
        place = self.place(number)
        found = {name: values[place[name]] for name, values in self.axes.items()}
        return found | {name: values[place["point"]] for name, values in self.points.items()}

    def part(self, first: int, stop: int) -> Part:
        """Returns what distinguishes the runs ``first`` to ``stop - 1``, which share their labels."""
        hparams = {name: column[first:stop] for name, column in self.batched.items()}
        return Part(seeds=self.seeds[first:stop], hparams=hparams, labels=self.labels(first))

    def chunks(self, done: np.ndarray, size: int) -> list[tuple[int, int]]:
        """Cuts the runs that are not done into chunks of runs that share their labels.

        Args:
            done: bool ``[num]``.
            size: the most runs in a chunk.

        Returns:
            For each chunk the number of its first run, and the number behind its last one.
        """
        todo = np.flatnonzero(~done)
        if not todo.size:
            return []
        chunks = []
        # A stretch is a range of runs without one that is done.
        for stretch in np.split(todo, np.flatnonzero(np.diff(todo) > 1) + 1):
            first, stop = int(stretch[0]), int(stretch[-1]) + 1
            cuts = [first, *(bound for bound in self._bounds if first < bound < stop), stop]
            for start, end in itertools.pairwise(cuts):
                chunks += pieces(start, end, size)
        return chunks

    def covered(self, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> np.ndarray:
        """Tells which runs are in chunks.

        Args:
            chunks: number of a chunk's first run -> metrics.

        Returns:
            bool ``[num]``.
        """
        done = np.zeros(self.num, bool)
        for first, metrics in chunks.items():
            done[first : first + num_runs(metrics)] = True
        return done

    def joined(self, name: str, chunks: Mapping[int, dict[str, np.ndarray]]) -> np.ndarray:
        """Joins a metric of all runs, in the order of the result, and takes it out of the chunks.

        Args:
            name: the metric.
            chunks: number of a chunk's first run -> metrics; together the chunks cover all runs.

        Returns:
            ``[*shape, ...]``.
        """
        one = next(iter(chunks.values()))[name]
        values = np.empty((self.num, *one.shape[1:]), one.dtype)
        # Each chunk's memory is to be freed while that of the result fills: else all would be there twice.
        del one
        for first, metrics in chunks.items():
            array = metrics.pop(name)
            values[self._order[first : first + len(array)]] = array
        return values.reshape(*self.shape, *values.shape[1:])


def pieces(first: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cuts a range of numbers into pieces.

    Args:
        first: the first number of the range.
        stop: the number behind the last one.
        size: the most numbers in a piece.

    Returns:
        ``(first, stop)`` of each piece.

    Example:
        >>> pieces(3, 10, 4)
        [(3, 7), (7, 10)]
    """
    return [(start, min(start + size, stop)) for start in range(first, stop, size)]
