"""A training run cut in time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["History", "Segments", "diverged"]


class Segments(NamedTuple):
    """A training run cut in time: between segments a sweep reports, keeps the carry on disk, and may stop early.

    Args:
        init: ``init(key, hparams, data) -> carry``, a pytree of arrays.
        advance: ``advance(carry, hparams, data) -> (carry, metrics)``: one segment, the same program for each; the
            first dimension of every metric is time, and segments are joined along it.
        num: number of segments, at least 1.
        stop: ``stop(metrics) -> bool`` of one run's segment, such as :func:`diverged`: from the next segment on the run
            counts as done, and its metrics repeat their last row. A chunk whose runs are all done ends. A run's result
            does not depend on the runs beside it.

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


def diverged(metrics: dict[str, jax.Array]) -> jax.Array:
    """Whether any float among one run's metrics is not finite; for the ``stop`` of :class:`Segments`.

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
    """The metrics of a chunk's runs, segment by segment, and which of the runs are done.

    Args:
        train: what runs.
        kept: segments done and the arrays of :meth:`arrays`, where it goes on.
    """

    def __init__(self, train: Segments, kept: tuple[int, dict[str, np.ndarray]] | None = None):
        """Starts empty, or with what was kept."""
        self.num, self._stop = train.num, train.stop and jax.vmap(train.stop)
        self.segments, arrays = kept or (0, {})
        self._done = arrays.get("done", np.False_)  # [runs] once a segment is there
        metrics = {name.removeprefix("metric "): x for name, x in arrays.items() if name.startswith("metric ")}
        self._parts: list[dict[str, np.ndarray]] = [metrics] if kept else []

    @property
    def last(self) -> dict[str, np.ndarray]:
        """The last segment's metrics, ``[runs, time, ...]``."""
        return self._parts[-1]

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Appends a segment; runs that were done before it repeat their last row, and so do all once all are done.

        Args:
            metrics: name -> ``[runs, time, ...]``.
        """
        if np.any(self._done):
            before = self._parts[-1]
            metrics = {
                name: np.where(self._done.reshape(-1, *[1] * (x.ndim - 1)), before[name][:, -1:], x)
                for name, x in metrics.items()
            }
        self._parts.append(metrics)
        self.segments += 1
        runs = len(next(iter(metrics.values())))
        self._done = self._done | (np.zeros(runs, bool) if self._stop is None else np.asarray(self._stop(metrics)))
        if np.all(self._done):
            still = {name: np.broadcast_to(x[:, -1:], x.shape) for name, x in metrics.items()}
            self._parts += [still] * (self.num - self.segments)
            self.segments = self.num

    def metrics(self) -> dict[str, np.ndarray]:
        """All segments' metrics, joined along time."""
        return {name: np.concatenate([part[name] for part in self._parts], 1) for name in self._parts[0]}

    def arrays(self) -> dict[str, Any]:
        """What must be kept to go on, beside the carry."""
        return {"done": self._done} | {f"metric {name}": x for name, x in self.metrics().items()}
