"""How far a sweep is: progress, records, and the trackers that keep them.

A tracker is a function of a record; those that must be closed are context managers. `mixjax run` always keeps a
`progress.jsonl` and takes the others by name (`--track tensorboard`).

```python
with mixjax.tracking.tensorboard("logs") as track:
    mixjax.sweep(train, seeds=1000, track=track)
```
"""

import contextlib
import importlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Progress", "Record", "json_lines", "tensorboard", "together", "wandb"]

_LOG = logging.getLogger(__name__)

Record = dict[str, Any]
"""How far a sweep is. ``done``, ``total``: runs. ``segment``, ``segments``: of the chunk at work. ``seconds`` since the
start. ``diverged``: runs so far with a float that is not finite. ``metrics``: name to the mean over the chunk's finite
runs of the metric's last value in time (along the time of segments, else along a dimension named step or time), None
where that is no finite number. Of several hosts each tells of its own chunks. `mixjax.experiment.run` adds ``run``, its
name in the config."""


def json_lines(path: str | os.PathLike) -> Callable[[Record], None]:
    """Appends each record to a file, a JSON object a line; ``pandas.read_json(path, lines=True)`` reads it.

    A line that a killed process left unfinished is taken off first.

    Args:
        path: the file; made with the first record.

    Returns:
        The tracker.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "progress.jsonl")
        >>> track = json_lines(path)
        >>> track({"done": 1, "total": 2, "metrics": {"loss": 0.5}})
        >>> path.read_text()
        '{"done": 1, "total": 2, "metrics": {"loss": 0.5}}\\n'
    """

    def track(record: Record) -> None:
        with open(path, "a+b") as file:
            if end := file.tell():
                file.seek(end - 1)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    return track


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Callable[[Record], None]]:
    """Writes each record's numbers as scalars of TensorBoard, against the segments of runs that are done.

    Args:
        folder: for the event file, as `tensorboard --logdir` takes it; one more is made each time.

    Yields:
        The tracker.

    Raises:
        ImportError: tensorboardX is missing (extra ``tensorboard``).

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with tensorboard(folder) as track:
        ...     track({"done": 1, "total": 2, "segment": 1, "segments": 1, "metrics": {"loss": 0.5}})
        >>> len(list(pathlib.Path(folder).iterdir()))
        1
    """
    try:
        import tensorboardX
    except ImportError as error:
        raise ImportError("this tracker needs tensorboardX: pip install 'mixjax[tensorboard]'") from error
    with tensorboardX.SummaryWriter(str(folder)) as writer:

        def track(record: Record) -> None:
            step = round(record["done"] * record["segments"])
            for name, value in _scalars(record).items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield track


@contextlib.contextmanager
def wandb(module: str = "wandb", **settings: Any) -> Iterator[Callable[[Record], None]]:
    """Logs each record with Weights & Biases, or with a library that takes its place (trackio, swanlab).

    Args:
        module: a library with ``init``, ``log`` and ``finish`` like those of wandb.
        **settings: of its ``init``, such as ``project``, ``name`` and ``config``.

    Yields:
        The tracker.

    Raises:
        ImportError: the library is missing (extra ``wandb``; others by their own name).

    Example:
        >>> def sweep_and_log(train):
        ...     with wandb(project="mixtures", name="rates") as track:
        ...         return mixjax.sweep(train, seeds=1000, track=track)
    """
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        package = "mixjax[wandb]" if module == "wandb" else module
        raise ImportError(f"this tracker needs {module}: pip install '{package}'") from error
    library.init(**settings)
    try:
        yield lambda record: library.log(_scalars(record))
    finally:
        library.finish()


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


def _scalars(record):
    """The numbers of a record by one name each, those of a config's run below the run's name."""
    prefix = f"{record['run']}/" if "run" in record else ""
    numbers = {name: value for name, value in record.items() if name not in ("run", "metrics")} | record["metrics"]
    return {prefix + name: value for name, value in numbers.items() if value is not None}


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
