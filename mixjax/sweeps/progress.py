"""Counts the progress of a sweep, and reports it to callbacks and trackers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NotRequired, TypedDict

import numpy as np

from mixjax.sweeps.arrays import as_computable, finite_runs

__all__ = ["Callback", "Progress", "Record", "Tracker", "together"]

_LOG = logging.getLogger(__name__)


class Record(TypedDict):
    """Says how far a sweep is, after a chunk or a segment.

    Of several hosts, each makes records of its own chunks.

    Attributes:
        done: runs that are done, among them those that were read from a checkpoint. Of the runs at work, the part that
            is done counts.
        total: runs in all.
        segment: segments that are done of the chunk at work, ``segments`` when the chunk is done.
        segments: segments of a run; 1 for a plain function.
        seconds: time since the start.
        diverged: runs so far with a float that is not finite.
        metrics: metric -> mean of its last value in time over the chunk's finite runs, or None where the mean is no
            finite number. Time is the first dimension of segments, else the one named "step" or "time".
        run: name of the config's run; in the records of ``mixjax run`` only.
    """

    done: float
    total: int
    segment: int
    segments: int
    seconds: float
    diverged: int
    metrics: dict[str, float | None]
    run: NotRequired[str]


Tracker = Callable[[Record], None]
Callback = Callable[[float, int], None]


def together(*trackers: Tracker) -> Tracker:
    """Makes one tracker of several.

    A tracker that raises is reported as a warning and gets no more records: the runs are worth more than their records.

    Args:
        *trackers: functions of a record.

    Returns:
        The tracker that calls each of them.

    Example:
        >>> seen = []
        >>> tracker = together(seen.append, lambda record: seen.append(len(seen)))
        >>> tracker({"done": 1})
        >>> seen
        [{'done': 1}, 1]
    """
    working = list(trackers)

    def tracker(record: Record) -> None:
        # Over a copy, since the loop may take a tracker out of the list.
        for each in tuple(working):
            try:
                each(record)
            except Exception:
                _LOG.warning("a tracker failed and gets no more records; the sweep goes on", exc_info=True)
                working.remove(each)

    return tracker


class Progress:
    """Counts the runs that are done, and tells a callback and a tracker after each chunk and each segment.

    Args:
        callback: ``callback(done, total)``, or None.
        tracker: called with records, or None.
        total: number of runs.
        kept: the chunks that were read from a checkpoint: number of the first run -> metrics.
        segments: number of segments of a run.
        time_axes: metric -> the place of time among the metric's own dimensions, or None.
    """

    def __init__(
        self,
        callback: Callback | None,
        tracker: Tracker | None,
        *,
        total: int,
        kept: Mapping[int, Mapping[str, np.ndarray]],
        segments: int,
        time_axes: Mapping[str, int | None],
    ):
        """Counts the runs of ``kept``, and tells the callback of them."""
        self._callback, self._total, self._start = callback, total, time.perf_counter()
        self._segments, self._time_axes = segments, time_axes
        # `together` catches the tracker's errors: a broken tracker stops no run.
        self._tracker = None if tracker is None else together(tracker)
        finite = [finite_runs(metrics) for metrics in kept.values()]
        self._done = sum(len(chunk) for chunk in finite)
        self._diverged = sum(_count_diverged(chunk) for chunk in finite)
        if kept and callback is not None:
            callback(self._done, total)

    def segment(self, metrics: Mapping[str, np.ndarray], segment: int) -> None:
        """Reports a segment of a chunk that is not done yet.

        Args:
            metrics: the segment's metrics, name -> ``[runs, time, ...]``.
            segment: number of segments that are done, this one among them.
        """
        finite = finite_runs(metrics)
        done = self._done + len(finite) * segment / self._segments
        diverged = self._diverged + _count_diverged(finite)
        self._tell(metrics, finite, done=done, diverged=diverged, segment=segment)

    def chunk(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Counts and reports a chunk that is done.

        Args:
            metrics: name -> ``[runs, ...]``.
        """
        finite = finite_runs(metrics)
        self._done += len(finite)
        self._diverged += _count_diverged(finite)
        self._tell(metrics, finite, done=self._done, diverged=self._diverged, segment=self._segments)

    def _tell(self, metrics, finite, *, done, diverged, segment):
        if self._callback is not None:
            self._callback(done, self._total)
        if self._tracker is None:
            return
        self._tracker(
            Record(
                done=done,
                total=self._total,
                segment=segment,
                segments=self._segments,
                seconds=time.perf_counter() - self._start,
                diverged=diverged,
                metrics={name: _mean(array, finite, self._time_axes[name]) for name, array in metrics.items()},
            )
        )


def _count_diverged(finite):
    return int((~finite).sum())


def _mean(array, finite, time_axis):
    """Returns the mean of the finite runs' last values in time, or None where there is none that is finite."""
    if time_axis is not None:
        # Dimension 0 counts the runs. A slice, not an index, which would fail on an array of no times.
        last = [slice(None)] * array.ndim
        last[time_axis + 1] = slice(-1, None)
        array = array[tuple(last)]
    array = as_computable(array[finite])
    if not array.size or array.dtype.kind == "c":
        return None
    # In 64 bits: the sum of large float32 numbers would overflow on the way.
    mean = float(array.mean(dtype=float))
    return mean if math.isfinite(mean) else None
