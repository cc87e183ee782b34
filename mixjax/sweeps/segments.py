"""Training runs cut in time, so that a sweep can report, save and stop in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.arrays import num_runs

__all__ = ["History", "Segments", "diverged", "num_segments"]


class Segments(NamedTuple):
    """Describes a training run cut in time.

    Between two segments a sweep reports its progress, keeps the carry on disk, and may stop early.

    Args:
        init: ``init(key, hparams, data) -> carry``, a pytree of arrays.
        advance: ``advance(carry, hparams, data) -> (carry, metrics)``: one segment, the same program for each. The
            first dimension of every metric is time, and the segments are joined along it.
        num: number of segments, at least 1.
        stop: ``stop(metrics) -> bool`` of one run's segment, such as :func:`diverged`. From the next segment on the run
            counts as done, and its metrics repeat their last row. A chunk ends when all its runs are done. A run's
            result does not depend on the runs beside it.

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
    """Tells whether any float among one run's metrics is not finite, for the ``stop`` of :class:`Segments`.

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
    return jnp.any(jnp.array([jnp.any(~jnp.isfinite(x)) for x in floats] or [False]))


class History:
    """Collects the metrics of a chunk's runs, segment by segment, and knows which of the runs are done.

    Args:
        train: the training run.
        kept: the number of segments done and what :meth:`arrays` returned then, to go on from there; None starts.
    """

    def __init__(self, train: Segments, kept: tuple[int, dict[str, np.ndarray]] | None = None):
        """Starts empty, or with what was kept."""
        self.num, self._stop = train.num, None if train.stop is None else jax.vmap(train.stop)
        self.segments, arrays = kept or (0, {})
        self._done = arrays.get("done", np.False_)  # [runs] once a segment is there
        metrics = {name.removeprefix("metric "): x for name, x in arrays.items() if name.startswith("metric ")}
        self._parts: list[dict[str, np.ndarray]] = [metrics] if kept else []

    @property
    def is_complete(self) -> bool:
        """Tells whether all segments are there."""
        return self.segments == self.num

    @property
    def last(self) -> dict[str, np.ndarray]:
        """Returns the last segment's metrics, ``[runs, time, ...]``."""
        return self._parts[-1]

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Appends a segment.

        Runs that were done before it repeat their last row. Once all runs are done, the segments that are left repeat
        the last row too.

        Args:
            metrics: name -> ``[runs, time, ...]``.
        """
        # The program goes on computing runs that are done, since their neighbours need it: what it gives is not shown.
        if np.any(self._done):
            metrics = {name: self._frozen(name, x) for name, x in metrics.items()}
        self._parts.append(metrics)
        self.segments += 1
        stopped = np.zeros(num_runs(metrics), bool) if self._stop is None else np.asarray(self._stop(metrics))
        self._done = self._done | stopped
        if np.all(self._done):
            # One row in memory, whatever the number of segments that are left.
            still = {name: np.broadcast_to(x[:, -1:], x.shape) for name, x in metrics.items()}
            self._parts += [still] * (self.num - self.segments)
            self.segments = self.num

    def metrics(self) -> dict[str, np.ndarray]:
        """Returns all segments' metrics, joined along time."""
        return {name: np.concatenate([part[name] for part in self._parts], 1) for name in self._parts[0]}

    def arrays(self) -> dict[str, Any]:
        """Returns what must be kept to go on, beside the carry."""
        return {"done": self._done} | {f"metric {name}": x for name, x in self.metrics().items()}

    def _frozen(self, name, x):
        """Returns a metric in which the runs that are done have their last row."""
        done = self._done.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(done, self.last[name][:, -1:], x)
