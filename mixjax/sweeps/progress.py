"""How far a sweep is: records, and who is told of them."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Progress", "Record", "together"]

_LOG = logging.getLogger(__name__)

Record = dict[str, Any]
"""How far a sweep is. ``done``, ``total``: runs. ``segment``, ``segments``: of the chunk at work. ``seconds`` since the
start. ``diverged``: runs so far with a float that is not finite. ``metrics``: name to the mean over the chunk's finite
runs of the metric's last value in time (along the time of segments, else along a dimension named step or time), None
where that is no finite number. Of several hosts each tells of its own chunks. ``mixjax run`` adds ``run``, its name in
the config."""


def together(*tracks: Callable[[Record], None]) -> Callable[[Record], None]:
    """One tracker of several. One that raises is reported as a warning and gets no more records: runs cost more.

    Args:
        *tracks: trackers.

    Returns:
        The tracker that calls each of them.

    Example:
        >>> seen = []
        >>> track = together(seen.append, lambda record: seen.append(len(seen)))
        >>> track({"done": 1})
        >>> seen
        [{'done': 1}, 1]
    """
    working = list(tracks)

    def track(record: Record) -> None:
        for each in tuple(working):
            try:
                each(record)
            except Exception:
                _LOG.warning("a tracker failed and gets no more records; the sweep goes on", exc_info=True)
                working.remove(each)

    return track


class Progress:
    """Calls a sweep's ``callback`` and ``track`` after each chunk and each segment.

    Args:
        callback: ``callback(done, total)``, or None.
        track: of records, see :func:`mixjax.sweep`; or None.
        total: number of runs.
        kept: chunks that were at hand.
        segments: calls of the program that a run takes.
        time_axes: each metric's dimension of time among its own, or None.
    """

    def __init__(
        self,
        callback: Callable[[float, int], None] | None,
        track: Callable[[dict[str, Any]], None] | None,
        total: int,
        kept: Mapping[int, Mapping[str, np.ndarray]],
        segments: int,
        time_axes: Mapping[str, int | None],
    ):
        """Starts with what was at hand."""
        self._callback, self._total, self._start = callback, total, time.perf_counter()
        self._segments, self._time_axes = segments, time_axes
        self._track = together(track) if track else None
        finite = [_finite_runs(metrics) for metrics in kept.values()]
        self._done, self._diverged = sum(map(len, finite)), sum(int((~x).sum()) for x in finite)
        if kept and callback is not None:
            callback(self._done, total)

    def segment(self, metrics: Mapping[str, np.ndarray], segment: int) -> None:
        """One segment of a chunk is done, and the chunk is not.

        Args:
            metrics: those of the segment, ``[runs, time, ...]``.
            segment: its number, from 1.
        """
        finite = _finite_runs(metrics)
        done, diverged = self._done + len(finite) * segment / self._segments, self._diverged + int((~finite).sum())
        self._tell(done, diverged, segment, metrics, finite)

    def chunk(self, metrics: Mapping[str, np.ndarray]) -> None:
        """A chunk is done: its runs' metrics, ``[runs, ...]``."""
        finite = _finite_runs(metrics)
        self._done += len(finite)
        self._diverged += int((~finite).sum())
        self._tell(self._done, self._diverged, self._segments, metrics, finite)

    def _tell(self, done, diverged, segment, metrics, finite):
        if self._callback is not None:
            self._callback(done, self._total)
        if self._track is None:
            return
        record = {"done": done, "total": self._total, "segment": segment, "segments": self._segments}
        record |= {"seconds": time.perf_counter() - self._start, "diverged": diverged}
        means = {name: _mean(x, finite, self._time_axes[name]) for name, x in metrics.items()}
        self._track(record | {"metrics": means})


def _finite_runs(metrics):
    """Which runs have finite floats only, bool ``[runs]``; of metrics ``[runs, ...]``."""
    finite = [np.ones(len(x), bool) for x in metrics.values()][:1]
    finite += [np.isfinite(_float(x)).reshape(len(x), -1).all(1) for x in metrics.values() if x.dtype.kind in "fcV"]
    return np.logical_and.reduce(finite)


def _mean(x, finite, time_axis):
    """Over the finite runs, of the last value in time; None where there is none or it is no finite number."""
    if time_axis is not None:
        x = x[(*[slice(None)] * (time_axis + 1), slice(-1, None))]
    x = _float(x[finite])
    mean = float(x.mean(dtype=float)) if x.size and x.dtype.kind != "c" else math.nan
    return mean if math.isfinite(mean) else None


def _float(x):
    return x.astype(np.float32) if x.dtype.kind == "V" else x  # bfloat16
