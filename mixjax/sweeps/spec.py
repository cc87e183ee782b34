"""Describes a sweep as one object: what to train, at which points and seeds, and how the runs are batched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np

from mixjax.sweeps.devices import Device
from mixjax.sweeps.host_loops import HostLoop
from mixjax.sweeps.segments import Segments

__all__ = ["Sweep", "Train", "Vectorize"]

Vectorize = Literal["vmap", "map", "auto"] | int


class Train(Protocol):
    """Describes a training function: it does one run, and is pure and jittable."""

    def __call__(self, key: jax.Array, hparams: dict[str, jax.Array], data: Any, /) -> Mapping[str, Any]:
        """Returns the run's metrics, a dict of arrays, or of dicts of arrays.

        Args:
            key: ``jax.random.key(seed)``.
            hparams: hyperparameter -> scalar, or an array where its values are vectors.
            data: the sweep's data.
        """
        ...


# A chunk is filled up to its size, and no memory holds more runs.
_MAX_CHUNK = 100_000_000


def _is_count(value: Any) -> bool:
    """Tells whether a value is a whole number, at least 1."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 1


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Describes a sweep: a training run, the points and seeds it is repeated over, and how the runs are batched.

    :func:`mixjax.sweep` takes the same arguments and runs the sweep. :func:`mixjax.sweeps.dry_run` sizes and times one,
    and :func:`mixjax.sweeps.search.search` chooses the points of one.

    Args:
        train: ``train(key, hparams, data) -> metrics``, pure and jittable. ``key`` is ``jax.random.key(seed)``, the
            same for every point unless ``paired`` is False. ``hparams`` is a dict of scalars, or arrays where the
            values are vectors, one for each axis and each column of ``points``. ``metrics`` is a dict of arrays; of a
            nested one, ``{"loss": {"train": ...}}``, the metric is called ``"loss.train"`` everywhere. Pass the same
            function object in every call, not a new lambda: the cache of compiled programs goes by it. A
            :class:`mixjax.sweeps.Segments` cuts a run in time. A :class:`mixjax.sweeps.HostLoop` is an ordinary Python
            loop, whose runs go one after the other.
        seeds: number of seeds, at least 1.
        axes: hyperparameter -> its values, all numbers, all strings or all vectors; the points are the product of the
            axes. Vectors are lists or arrays of numbers that have one shape, such as mixtures. NaN is refused. Strings
            are labels: ``train`` gets a label's position (an int32, for instance the index of
            :func:`mixjax.rules.select`), and the result has the strings. Positions count the different strings in the
            order in which they first appear; :class:`mixjax.sweeps.Labels` sets another order. All runs of a chunk
            have the same labels, so that a ``lax.switch`` over them runs one branch, under ``vmap`` too.
        points: hyperparameter -> column, all columns of one length. Entry ``i`` of the columns is point ``i``, and the
            points are in product with the axes. :func:`mixjax.sweeps.random_points` draws such columns.
        data: pytree that every run gets. It is an argument of the program, not a constant in it.
        dims: metric -> the names of its own dimensions; ``"<metric>_0"`` and so on where a metric is left out.
        coords: dimension -> the labels along it. The dimensions of a vector are called ``"<hyperparameter>_0"`` and so
            on.
        first_seed: the first seed, at least 0; the last one must be below 2³².
        paired: whether all points have the same seeds, so that their differences have less noise. That is right to
            compare points. It is wrong to fit a law through them, as mixture design does: noise that moves all points
            alike does not average out, and no test can see it. With False every run has a seed of its own: run s of
            point i has ``first_seed + i * seeds + s``, with the points numbered in the order of the result, and the
            result's coordinate ``seed`` is s.
        chunk: number of runs in one call of the compiled program, rounded up to a multiple of the devices. "auto"
            takes as many as fit the devices' memory by the compiler's analysis (with "map" 16 a device, since more
            would gain nothing), and halves the chunk where memory runs out all the same. Progress is reported between
            chunks.
        vectorize: ``"vmap"`` runs a chunk as one batch on each device, ``"map"`` one run after the other inside the
            program. A number computes so many runs at once on each device, or a few less so that a chunk is divided
            evenly, one such batch after the other; it also merges the dimensions that matrix products sum over
            (:mod:`mixjax.sweeps.contractions`), which speeds up networks whose activations have more than two
            dimensions. The default is ``"vmap"`` on accelerators and ``"auto"`` on a CPU, where the fastest way depends
            on the model: ``"auto"`` measures short calls of ``"map"`` and of several numbers, and takes the fastest
            that fits the memory. It spends at most a twentieth of the sweep's time on that, or up to three seconds of a
            shorter sweep. What takes less than ten seconds, or has fewer than 20 rounds of runs, is not measured: its
            runs go by ``"map"``. The choice is an attribute of the result, ``vectorize``: give it to get bitwise the
            same result again. A checkpoint keeps the choice. With "rbg" keys (``jax_default_prng_impl``) it is
            ``"map"``, and batches are refused, since such a key draws other numbers in a batch than alone.
        devices: the devices to split the runs over; the default is all of this host. A CPU counts as one device unless
            ``jax.config.update("jax_num_cpu_devices", n)`` was called before JAX's first use; ``mixjax run`` takes as
            many as there are cores. Runs that decompose batches of matrices (``jnp.linalg.solve``, ``svd``) use one of
            a CPU's devices, since XLA's threads can wait for each other for ever where two devices do so at once.

    Raises:
        TypeError: ``train`` cannot be hashed, hence not be kept with its compiled program.
        ValueError: ``chunk`` or ``vectorize`` is not one of the values above. The other arguments are checked when the
            sweep is run, dry or not.

    Example:
        >>> spec = Sweep(lambda key, hparams, data: {"x": hparams["a"]}, seeds=5, axes={"a": [0.0, 1.0]})
        >>> spec.num_runs, dataclasses.replace(spec, seeds=10).num_runs
        (10, 20)
    """

    train: Train | Segments | HostLoop
    _: dataclasses.KW_ONLY
    seeds: int
    axes: Mapping[str, Sequence] | None = None
    points: Mapping[str, Sequence] | None = None
    data: Any = None
    dims: Mapping[str, tuple[str, ...]] | None = None
    coords: Mapping[str, Sequence] | None = None
    first_seed: int = 0
    paired: bool = True
    chunk: int | Literal["auto"] = "auto"
    vectorize: Vectorize | None = None
    devices: Sequence[Device] | None = None

    def __post_init__(self):
        """Checks what can be checked without a device."""
        if self.vectorize not in ("map", "vmap", "auto", None) and not _is_count(self.vectorize):
            raise ValueError(
                f"vectorize must be 'map', 'vmap', 'auto' or a number of runs, at least 1, got {self.vectorize!r}."
            )
        if self.chunk != "auto" and not _is_count(self.chunk):
            raise ValueError(f"chunk must be 'auto' or at least 1, got {self.chunk!r}.")
        if self.chunk != "auto" and int(self.chunk) > _MAX_CHUNK:
            raise ValueError(f"chunk must be at most {_MAX_CHUNK:,}, got {self.chunk!r}.")
        # The function is part of the key under which its compiled program is cached.
        try:
            hash(self.train)
        except TypeError as error:
            raise TypeError(f"train is kept with its compiled program and must be hashable: {error}.") from error

    @property
    def num_runs(self) -> int:
        """Counts the runs: the points of axes and columns together, times the seeds."""
        sizes = [len(values) for values in (self.axes or {}).values()]
        if self.points:
            sizes.append(len(next(iter(self.points.values()))))
        return self.seeds * math.prod(sizes)
