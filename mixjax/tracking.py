"""How far a sweep is: progress, and records for trackers."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Progress", "finite_runs"]


def finite_runs(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which runs have finite floats only.

    Args:
        metrics: name to ``[runs, ...]``.

    Returns:
        bool ``[runs]``.
    """
    finite = [np.ones(len(x), bool) for x in metrics.values()][:1]
    finite += [np.isfinite(_float(x)).reshape(len(x), -1).all(1) for x in metrics.values() if x.dtype.kind in "fcV"]
    return np.logical_and.reduce(finite)


class Progress:
    """Calls a sweep's ``callback`` and ``track`` after each chunk and each segment.

    Args:
        callback: ``callback(done, total)``, or None.
        track: of records, see :func:`mixjax.sweep`; or None.
        total: number of runs.
        kept: chunks that were at hand.
    """

    def __init__(
        self,
        callback: Callable[[float, int], None] | None,
        track: Callable[[dict[str, Any]], None] | None,
        total: int,
        kept: Mapping[int, Mapping[str, np.ndarray]],
    ):
        """Starts with what was at hand."""
        self._callback, self._track, self._total, self._start = callback, track, total, time.perf_counter()
        finite = [finite_runs(metrics) for metrics in kept.values()]
        self._done, self._diverged = sum(map(len, finite)), sum(int((~x).sum()) for x in finite)
        if kept and callback is not None:
            callback(self._done, total)

    def segment(self, metrics: Mapping[str, np.ndarray], segment: int, segments: int) -> None:
        """One segment of a chunk is done, and the chunk is not: its metrics, ``[runs, time, ...]``."""
        runs = len(next(iter(metrics.values())))
        self._tell(self._done + runs * segment / segments, metrics, segment, segments)

    def chunk(self, metrics: Mapping[str, np.ndarray], segments: int = 1) -> None:
        """A chunk is done: its runs' metrics, ``[runs, ...]``."""
        finite = finite_runs(metrics)
        self._done += len(finite)
        self._diverged += int((~finite).sum())
        self._tell(self._done, metrics, segments, segments)

    def _tell(self, done, metrics, segment, segments):
        if self._callback is not None:
            self._callback(done, self._total)
        if self._track is None:
            return
        finite = finite_runs(metrics)
        diverged = self._diverged + (int((~finite).sum()) if segment < segments else 0)
        record = {"done": done, "total": self._total, "segment": segment, "segments": segments}
        record |= {"seconds": time.perf_counter() - self._start, "diverged": diverged}
        for name, x in metrics.items():
            x = _float(x[finite])
            x = x if x.ndim == 1 else x[:, -1] if segments > 1 else x[..., -1]
            record[name] = float(x.mean()) if x.size else None
        self._track(record)


def _float(x):
    return x.astype(np.float32) if x.dtype.kind == "V" else x  # bfloat16
