"""Counts the progress of a sweep, and reports it to callbacks and trackers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from mixjax.sweeps.arrays import as_computable, finite_runs

__all__ = ["Callback", "Domains", "Progress", "Record", "Tracker", "domains_of", "together"]

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
        by_domain: metric -> domain -> the same mean of each domain, for metrics with a dimension named "domain" and at
            most 100 domains; left out where there are none.
        run: name of the config's run; in the records of ``mixjax run`` only.
    """

    done: float
    total: int
    segment: int
    segments: int
    seconds: float
    diverged: int
    metrics: dict[str, float | None]
    by_domain: NotRequired[dict[str, dict[str, float | None]]]
    run: NotRequired[str]


Tracker = Callable[[Record], None]
Callback = Callable[[float, int], None]


# Records of more domains would be larger than what they tell.
_MAX_DOMAINS = 100
# Between two records of a run that reports itself: at least so many seconds, and so much of the time until then.
_PAUSE, _PAUSE_SHARE = 2.0, 0.01


class Domains(NamedTuple):
    """Holds where the domains of a metric lie: the place among its own dimensions, and their names."""

    axis: int
    names: tuple[str, ...]


def domains_of(dims: Mapping[str, Sequence[str]], coords: Mapping[str, Sequence]) -> dict[str, Domains]:
    """Finds the metrics that are measured by domain.

    Args:
        dims: metric -> the names of its own dimensions.
        coords: dimension -> labels.

    Returns:
        Metric -> where its dimension "domain" lies; empty without labels of domains, or with more than 100 of them.

    Example:
        >>> domains_of({"loss": ("step", "domain"), "rate": ()}, {"domain": ["web", "code"]})
        {'loss': Domains(axis=1, names=('web', 'code'))}
    """
    names = tuple(str(label) for label in coords.get("domain", ()))
    if not 0 < len(names) <= _MAX_DOMAINS:
        return {}
    return {name: Domains(list(own).index("domain"), names) for name, own in dims.items() if "domain" in own}


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
        domains: metric -> its domains, as :func:`domains_of` finds them.
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
        domains: Mapping[str, Domains] | None = None,
    ):
        """Counts the runs of ``kept``, and tells the callback of them."""
        self._callback, self._total, self._start = callback, total, time.perf_counter()
        self._segments, self._time_axes = segments, time_axes
        self._domains = {} if domains is None else domains
        self._last_part = self._start
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

    def part(self, part: float) -> None:
        """Reports how much of a run that reports itself is done; records of it are few, however often it does.

        Args:
            part: from 0 to 1; what is beyond counts as the end.
        """
        done = self._done + min(max(float(part), 0.0), 1.0)
        if self._callback is not None:
            self._callback(done, self._total)
        now = time.perf_counter()
        if now - self._last_part >= max(_PAUSE, _PAUSE_SHARE * (now - self._start)):
            self._last_part = now
            self._record({}, np.ones(0, bool), done=done, diverged=self._diverged, segment=0)

    def _tell(self, metrics, finite, *, done, diverged, segment):
        if self._callback is not None:
            self._callback(done, self._total)
        self._record(metrics, finite, done=done, diverged=diverged, segment=segment)

    def _record(self, metrics, finite, *, done, diverged, segment):
        if self._tracker is None:
            return
        record = Record(
            done=done,
            total=self._total,
            segment=segment,
            segments=self._segments,
            seconds=time.perf_counter() - self._start,
            diverged=diverged,
            metrics={name: _mean(_last(array, finite, self._time_axes[name])) for name, array in metrics.items()},
        )
        by_domain = {
            name: _means_by_domain(metrics[name], finite, self._time_axes[name], domains)
            for name, domains in self._domains.items()
            if name in metrics
        }
        if by_domain:
            record["by_domain"] = by_domain
        self._tracker(record)


def _count_diverged(finite):
    return int((~finite).sum())


def _last(array, finite, time_axis):
    """Returns the finite runs' last values in time, with the dimension of time."""
    if time_axis is not None:
        # Dimension 0 counts the runs. A slice, not an index, which would fail on an array of no times.
        last = [slice(None)] * array.ndim
        last[time_axis + 1] = slice(-1, None)
        array = array[tuple(last)]
    return as_computable(array[finite])


def _mean(array):
    """Returns the mean of an array, or None where there is none that is finite."""
    if not array.size or array.dtype.kind == "c":
        return None
    # In 64 bits: the sum of large float32 numbers would overflow on the way.
    mean = float(array.mean(dtype=float))
    return mean if math.isfinite(mean) else None


def _means_by_domain(array, finite, time_axis, domains):
    """Returns domain -> the mean of the finite runs' last values."""
    by_domain = np.moveaxis(_last(array, finite, time_axis), domains.axis + 1, 0)
    return {name: _mean(values) for name, values in zip(domains.names, by_domain, strict=True)}
