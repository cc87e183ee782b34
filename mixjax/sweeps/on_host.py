"""Runs a sweep whose training runs are ordinary Python loops: one after the other, each with folders of its own."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mixjax.files import make_folder
from mixjax.stopping import check_preempted
from mixjax.sweeps.arrays import digest
from mixjax.sweeps.checkpoints import Chunks
from mixjax.sweeps.host_loops import HostRun
from mixjax.sweeps.identity import described_runs
from mixjax.sweeps.keys import bits
from mixjax.sweeps.metrics import metric_dims, time_axes
from mixjax.sweeps.nested import flat_metrics
from mixjax.sweeps.progress import Callback, Domains, Progress, Tracker, domains_of
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.spec import Sweep

__all__ = ["FILES", "Done", "check_one_by_one", "run_on_host"]

_LOG = logging.getLogger(__name__)

FILES = "files"
"""The folder inside a checkpoint folder that holds what the runs have kept, a folder for each run."""


class Done(NamedTuple):
    """Holds a sweep whose runs are all done.

    Attributes:
        runs: the runs.
        dims: metric -> the names of its own dimensions.
        metrics: number of a run -> metrics, ``[1, ...]`` each.
        attrs: the attributes of the result.
    """

    runs: Runs
    dims: dict[str, tuple[str, ...]]
    metrics: dict[int, dict[str, np.ndarray]]
    attrs: dict[str, Any]


def run_on_host(
    spec: Sweep,
    *,
    callback: Callback | None = None,
    tracker: Tracker | None = None,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Done:
    """Runs a sweep whose ``train`` is a :class:`HostLoop`; :func:`mixjax.sweeps.run` calls it.

    Args:
        spec: the sweep. Its ``chunk``, ``vectorize`` and ``devices`` have no meaning here, and are refused.
        callback: called with the number of runs done, and of all.
        tracker: called with records.
        checkpoint: folder for the metrics of finished runs and the files of all; a temporary one where it is None.
        identity: name -> JSON value, compared with what the folder was made with.

    Returns:
        The sweep, done.

    Raises:
        ValueError: several hosts, an argument without a meaning, or runs whose metrics differ in shape.
        TypeError: metrics that are no arrays.
        mixjax.sweeps.checkpoints.ChangedError: the folder belongs to another sweep.
    """
    if jax.process_count() > 1:
        raise ValueError("a HostLoop runs in one process, and there are several hosts (jax.distributed).")
    check_one_by_one(spec)
    runs = Runs(spec.axes or {}, spec.points or {}, spec.seeds, spec.first_seed, spec.paired)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if checkpoint is None else checkpoint.absolute()
        return _run_all(spec, runs, folder, callback, tracker, identity or {})


def check_one_by_one(spec: Sweep) -> None:
    """Raises a ValueError where a sweep of a :class:`HostLoop` has an argument that concerns programs only."""
    for name, value, default in (("chunk", spec.chunk, "auto"), ("vectorize", spec.vectorize, None)):
        if value != default:
            raise ValueError(
                f"{name} has no meaning for a HostLoop, whose runs go one by one: leave it out, got {value!r}."
            )
    if spec.devices is not None:
        raise ValueError("devices have no meaning for a HostLoop, which places its arrays itself: leave them out.")


def _run_all(spec, runs, folder, callback, tracker, identity):
    store = Chunks(folder, {**identity, **_identity_of(spec, runs)})
    kept = store.read()
    _tell_of_kill(store)
    dims: dict[str, tuple[str, ...]] = {}
    times: dict[str, int | None] = {}
    domains: dict[str, Domains] = {}

    def learn_dims(metrics):
        # Metrics and their shapes are known when one run is done.
        dims.update(_dims_of(metrics, spec, runs))
        times.update(time_axes(_shapes_of(metrics), dims))
        domains.update(domains_of(dims, spec.coords or {}))

    if kept:
        learn_dims(next(iter(kept.values())))
    progress = Progress(callback, tracker, total=runs.num, kept=kept, segments=1, time_axes=times, domains=domains)
    start, todo = time.perf_counter(), [number for number in range(runs.num) if number not in kept]
    for number in todo:
        check_preempted()
        title = _title(runs, number)
        run = HostRun(
            seed=int(runs.seeds[number]),
            hparams=runs.values(number),
            data=spec.data,
            scratch=_made(folder / "scratch" / title),
            files=_made(folder / FILES / title),
            report=_stopping(progress.part),
        )
        # Written anew for each run: a process that is killed leaves the name of the run that it was at work on.
        with store.attempts.noted(1, title):
            metrics = {name: np.asarray(value)[None] for name, value in flat_metrics(spec.train.train(run)).items()}
            if not dims:
                learn_dims(metrics)
            _check_alike(metrics, next(iter(kept.values()), metrics), title)
            store.write({number: metrics})
        shutil.rmtree(run.scratch, ignore_errors=True)
        kept[number] = metrics
        progress.chunk(metrics)
    attrs = {"num_runs": runs.num, "num_computed": len(todo), "chunk": 1, "vectorize": "host"}
    attrs |= {"compile_seconds": 0.0, "run_seconds": time.perf_counter() - start}
    return Done(runs, dims, kept, attrs)


def _tell_of_kill(store):
    """Says so where the kernel killed the last attempt for memory, and at which run."""
    if store.attempts.died_at is not None:
        run = store.attempts.died_in or "unknown"
        _LOG.warning(
            "%s: the last attempt was killed for memory at run %s; that run goes on with what it had saved. If it is "
            "killed again, give the process more memory, or let a run hold less",
            store.folder,
            run,
        )


def _identity_of(spec, runs):
    function = spec.train.train
    return {
        **described_runs(runs),
        "data": digest({str(i): _comparable(leaf) for i, leaf in enumerate(jax.tree.leaves(spec.data))}),
        "loop": f"{function.__module__}:{function.__qualname__}",
        "jax": jax.__version__,
    }


def _comparable(leaf):
    """Returns an array that stands for a leaf of the data: arrays, numbers and texts by value, others by their type."""
    if hasattr(leaf, "dtype"):
        return bits(leaf)
    return np.asarray(repr(leaf) if isinstance(leaf, (bool, int, float, str)) else type(leaf).__qualname__)


def _title(runs, number):
    """Names the folder of a run by its axes, its point and its seed, such as ``rule=erma,seed=7``."""
    named = []
    for dim, position in runs.place(number).items():
        values = {"seed": runs.coords["seed"].tolist(), **runs.axes}.get(dim, [])
        text = str(values[position]) if values else str(position)
        # A vector, an odd name or a value that an axis has twice is told by its position.
        if not re.fullmatch(r"[-+.\w]{1,40}", text) or [str(value) for value in values].count(text) > 1:
            text = f"no{position}"
        named.append(f"{dim}={text}")
    return ",".join(named)


def _made(folder):
    return make_folder("checkpoint", folder)


def _stopping(report):
    """Makes a report of a run also the place at which a signal of a scheduler ends it."""

    def report_and_stop(part: float) -> None:
        report(part)
        check_preempted()

    return report_and_stop


def _shapes_of(metrics):
    """Makes a training run that returns zeros like some metrics, for the checks that trace one."""
    return lambda *_: {name: np.zeros(value.shape[1:], value.dtype) for name, value in metrics.items()}


def _dims_of(metrics, spec, runs):
    return metric_dims(_shapes_of(metrics), {}, None, taken=runs.names, dims=spec.dims or {}, coords=spec.coords or {})


def _check_alike(metrics, first, title):
    """Raises a ValueError where a run's metrics differ from an earlier run's in name, shape or type."""
    given, expected = ({name: (x.shape[1:], str(x.dtype)) for name, x in each.items()} for each in (metrics, first))
    if given != expected:
        raise ValueError(f"the metrics of all runs must be alike: {title} returned {given}, an earlier run {expected}.")
