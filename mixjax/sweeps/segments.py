"""Cuts training runs in time, so that a sweep can report, save and stop in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.arrays import num_runs

__all__ = ["History", "Kept", "Segments", "diverged", "num_segments"]

_METRIC = "metric "
"""Begins the name of each metric on disk, so that no metric is taken for "done" or for a part of the carry."""


class Segments(NamedTuple):
    """Describes a training run cut in time.

    Between two segments a sweep reports its progress, writes the carry to disk, and may stop early.

    Args:
        init: ``init(key, hparams, data) -> carry``, a pytree of arrays.
        advance: ``advance(carry, hparams, data) -> (carry, metrics)``: one segment, the same program for each. The
            first dimension of every metric is time, and the segments are joined along it.
        num: number of segments, at least 1.
        stop: ``stop(metrics) -> bool``, called with the metrics of one segment of one run, as ``advance`` returned
            them; :func:`diverged` is one.
            Once it returns True, the run counts as done: in all later segments its metrics repeat their last entry in
            time. A chunk ends when all its runs are done. A run's result does not depend on the other runs of its
            chunk.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def init(key, hparams, data):
        ...     return jnp.float32(1.0)
        >>> def advance(x, hparams, data):
        ...     xs = x * hparams["rate"] ** jnp.arange(1.0, 3.0)      # two steps
        ...     return xs[-1], {"x": xs}
        >>> train = mixjax.sweeps.Segments(init, advance, num=2)
        >>> mixjax.sweep(train, seeds=1, axes={"rate": [0.5]}, dims={"x": ("step",)}).x.values.tolist()
        [[[0.5, 0.25, 0.125, 0.0625]]]
    """

    init: Callable
    advance: Callable
    num: int
    stop: Callable | None = None


def num_segments(train: Any) -> int:
    """Counts the segments of a training run; a plain function is one."""
    return train.num if isinstance(train, Segments) else 1


def diverged(metrics: dict[str, jax.Array]) -> jax.Array:
    """Tells whether any float among one run's metrics is not finite; made for the ``stop`` of :class:`Segments`.

    Args:
        metrics: name to array.

    Returns:
        bool scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(diverged({"loss": jnp.array([1.0, jnp.nan]), "step": jnp.arange(2)}))
        True
    """
    floats = [x for x in jax.tree.leaves(metrics) if jnp.issubdtype(x.dtype, jnp.inexact)]
    found = [jnp.any(~jnp.isfinite(x)) for x in floats]
    # Without a float among the metrics there is nothing to join.
    return jnp.any(jnp.array(found or [False]))


class Kept(NamedTuple):
    """Holds an unfinished chunk as it is kept on disk.

    Args:
        num_done: number of segments that are done.
        arrays: name -> array: what :meth:`History.arrays` returns, and the carry.
    """

    num_done: int
    arrays: dict[str, np.ndarray]


class History:
    """Collects the metrics of a chunk's runs, segment by segment, and knows which of the runs are done.

    Args:
        train: the training run.
        kept: an unfinished chunk to continue, or None to begin one.

    Attributes:
        num_done: number of segments that are there.
    """

    def __init__(self, train: Segments, kept: Kept | None = None):
        """Starts empty, or with the segments that were kept."""
        self._num, self._stop = train.num, None if train.stop is None else jax.vmap(train.stop)
        self.num_done = 0
        # Becomes an array [runs] with the first segment, which tells how many runs there are.
        self._done: Any = np.False_
        self._parts: list[dict[str, np.ndarray]] = []
        if kept is not None:
            self.num_done, self._done = kept.num_done, kept.arrays["done"]
            names = [name for name in kept.arrays if name.startswith(_METRIC)]
            self._parts.append({name.removeprefix(_METRIC): kept.arrays[name] for name in names})

    @property
    def is_complete(self) -> bool:
        """Tells whether all segments are there."""
        return self.num_done == self._num

    @property
    def last(self) -> dict[str, np.ndarray]:
        """Returns the last segment's metrics, ``[runs, time, ...]``."""
        return self._parts[-1]

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Appends a segment.

        Runs that were done before this segment repeat their last entry in time. Once all runs are done, the segments
        that are left are filled in the same way.

        Args:
            metrics: name -> ``[runs, time, ...]``.
        """
        # The program computes all runs of the chunk, the done ones too: what it returns for those is thrown away.
        if np.any(self._done):
            metrics = {name: self._frozen(name, x) for name, x in metrics.items()}
        self._parts.append(metrics)
        self.num_done += 1
        stopped = np.zeros(num_runs(metrics), bool) if self._stop is None else np.asarray(self._stop(metrics))
        self._done = self._done | stopped
        if np.all(self._done):
            # A view: one entry in memory, however many segments are left.
            repeated = {name: np.broadcast_to(x[:, -1:], x.shape) for name, x in metrics.items()}
            self._parts += [repeated] * (self._num - self.num_done)
            self.num_done = self._num

    def metrics(self) -> dict[str, np.ndarray]:
        """Returns all segments' metrics, joined along time."""
        return {name: np.concatenate([part[name] for part in self._parts], 1) for name in self._parts[0]}

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays that must be kept beside the carry to continue the chunk."""
        return {"done": self._done} | {f"{_METRIC}{name}": x for name, x in self.metrics().items()}

    def _frozen(self, name, x):
        """Returns a metric in which the runs that are done repeat their last entry in time."""
        done = self._done.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(done, self.last[name][:, -1:], x)
