"""Cuts training runs in time, so that a sweep can report, save and stop in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.arrays import num_runs

__all__ = ["History", "Kept", "Segments", "diverged", "num_calls", "num_segments"]

_METRIC, _END = "metric ", "end "
"""Begin the names of metrics on disk, so that none is taken for "done" or for a part of the carry: those that segments
return, and those of the end of a run."""


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
        finish: ``finish(carry, hparams, data) -> metrics``, what a run is worth at its end, such as its test accuracy:
            called once, with the carry after the run's last segment, which is the one at which ``stop`` returned True
            where it did. These metrics have no time, and none has the name of a metric of ``advance``.
        calls: None computes a segment by one call of ``advance``, and, where runs go one by one, loops over them inside
            the compiled program. A number is that of calls of ``advance`` in a segment, each from the host and for one
            run a device, outside of any compiled loop. Inside such a loop XLA's convolutions and their gradients are
            10 to 20 times slower on a CPU. So let ``advance`` take one step of a network with convolutions, and
            ``calls`` be the number of steps from one report to the next.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def init(key, hparams, data):
        ...     return jnp.float32(1.0)
        >>> def advance(x, hparams, data):
        ...     xs = x * hparams["rate"] ** jnp.arange(1.0, 3.0)      # two steps
        ...     return xs[-1], {"x": xs}
        >>> def finish(x, hparams, data):
        ...     return {"distance": 1.0 - x}
        >>> train = mixjax.sweeps.Segments(init, advance, num=2, finish=finish)
        >>> found = mixjax.sweep(train, seeds=1, axes={"rate": [0.5]}, dims={"x": ("step",)})
        >>> found.x.values.tolist(), found.distance.values.tolist()
        ([[[0.5, 0.25, 0.125, 0.0625]]], [[0.9375]])
    """

    init: Callable
    advance: Callable
    num: int
    stop: Callable | None = None
    finish: Callable | None = None
    calls: int | None = None


def num_segments(train: Any) -> int:
    """Counts the segments of a training run; a plain function is one."""
    return train.num if isinstance(train, Segments) else 1


def num_calls(train: Segments) -> int:
    """Counts the calls of ``advance`` in a segment."""
    return 1 if train.calls is None else train.calls


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
        # Metrics of the runs' ends; the rows of runs that have not ended are zeros.
        self._ends: dict[str, np.ndarray] = {}
        if kept is not None:
            self.num_done, self._done = kept.num_done, kept.arrays["done"]
            self._parts.append(_with_prefix(_METRIC, kept.arrays))
            self._ends = _with_prefix(_END, kept.arrays)

    @property
    def is_complete(self) -> bool:
        """Tells whether all segments are there."""
        return self.num_done == self._num

    @property
    def last(self) -> dict[str, np.ndarray]:
        """Returns the last segment's metrics, ``[runs, time, ...]``."""
        return self._parts[-1]

    def add(self, metrics: dict[str, np.ndarray]) -> np.ndarray:
        """Appends a segment.

        Runs that were done before this segment repeat their last entry in time. Once all runs are done, the segments
        that are left are filled in the same way.

        Args:
            metrics: name -> ``[runs, time, ...]``.

        Returns:
            bool ``[runs]``: which runs have ended with this segment, and not before.
        """
        # The program computes all runs of the chunk, the done ones too: what it returns for those is thrown away.
        if np.any(self._done):
            metrics = {name: self._frozen(name, x) for name, x in metrics.items()}
        self._parts.append(metrics)
        self.num_done += 1
        stopped = np.zeros(num_runs(metrics), bool) if self._stop is None else np.asarray(self._stop(metrics))
        before, self._done = self._done, self._done | stopped | (self.num_done == self._num)
        if np.all(self._done):
            # A view: one entry in memory, however many segments are left.
            repeated = {name: np.broadcast_to(x[:, -1:], x.shape) for name, x in metrics.items()}
            self._parts += [repeated] * (self._num - self.num_done)
            self.num_done = self._num
        return self._done & ~before

    def end(self, ended: np.ndarray, metrics: dict[str, np.ndarray]) -> None:
        """Takes the metrics of runs that have ended.

        Args:
            ended: bool ``[runs]``, which runs they are.
            metrics: name -> ``[runs, ...]``; only the rows of those runs count.
        """
        for name, x in metrics.items():
            before = self._ends.get(name, np.zeros_like(x))
            self._ends[name] = np.where(ended.reshape(-1, *[1] * (x.ndim - 1)), x, before)

    def metrics(self) -> dict[str, np.ndarray]:
        """Returns all segments' metrics, joined along time, and those of the runs' ends."""
        return self._joined() | self._ends

    def arrays(self) -> dict[str, Any]:
        """Returns the arrays that must be kept beside the carry to continue the chunk."""
        # Joined here once: else each save would join all segments again, and hold them twice.
        self._parts = [self._joined()]
        parts = {f"{_METRIC}{name}": x for name, x in self._parts[0].items()}
        return {"done": self._done} | parts | {f"{_END}{name}": x for name, x in self._ends.items()}

    def _joined(self):
        return {name: np.concatenate([part[name] for part in self._parts], 1) for name in self._parts[0]}

    def _frozen(self, name, x):
        """Returns a metric in which the runs that are done repeat their last entry in time."""
        done = self._done.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(done, self.last[name][:, -1:], x)


def _with_prefix(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
