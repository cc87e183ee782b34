"""Runs a sweep, chunk after chunk until all runs are done, and joins the chunks into a dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixjax.files import claimed, local_path
from mixjax.stopping import check_preempted
from mixjax.sweeps.checkpoints import Chunks, kept_identity
from mixjax.sweeps.devices import Device, outside_meshes
from mixjax.sweeps.executor import Executor
from mixjax.sweeps.host_loops import HostLoop
from mixjax.sweeps.hosts import Hosts
from mixjax.sweeps.identity import identity_of
from mixjax.sweeps.on_host import run_on_host
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.progress import Callback, Progress, Tracker, domains_of
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.saving import Saver
from mixjax.sweeps.segments import Segments, num_segments
from mixjax.sweeps.spec import Sweep, Train, Vectorize
from mixjax.sweeps.tuning import choose_vectorize
from mixjax.sweeps.vectors import indexed

if TYPE_CHECKING:
    import xarray

__all__ = ["dataset", "run", "sweep"]

_LOG = logging.getLogger(__name__)

_MEASURING = "measuring"
"""What the note of an attempt says in place of a run while the number of runs to compute at once is measured."""


def sweep(
    train: Train | Segments | HostLoop,
    *,
    seeds: int,
    axes: Mapping[str, Sequence] | None = None,
    points: Mapping[str, Sequence] | None = None,
    data: Any = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    first_seed: int = 0,
    paired: bool = True,
    chunk: int | Literal["auto"] = "auto",
    vectorize: Vectorize | None = None,
    devices: Sequence[Device] | None = None,
    callback: Callback | None = None,
    tracker: Tracker | None = None,
    checkpoint: str | os.PathLike | None = None,
    identity: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """Runs ``train`` for every point of a grid, or of a list, and every seed.

    ``mixjax.sweep(train, seeds=100, ...)`` is short for ``run(Sweep(train, seeds=100, ...))``.
    :class:`mixjax.sweeps.Sweep` describes the arguments from ``train`` to ``devices`` in full.

    Args:
        train: ``train(key, hparams, data) -> metrics``, pure and jittable, or :class:`mixjax.sweeps.Segments`, or
            :class:`mixjax.sweeps.HostLoop`.
        seeds: number of seeds of each point, at least 1.
        axes: hyperparameter -> its values, numbers, strings or vectors; the points are the product of the axes.
        points: hyperparameter -> column; entry ``i`` of the columns is point ``i``, in product with the axes.
        data: pytree that every run gets.
        dims: metric -> the names of its own dimensions.
        coords: dimension -> the labels along it.
        first_seed: the first seed.
        paired: whether all points have the same seeds; with False every run has a seed of its own.
        chunk: number of runs in one call of the compiled program; "auto" takes as many as fit the memory.
        vectorize: how a device computes its runs of a chunk: ``"vmap"``, ``"map"``, a number of runs at once, or
            ``"auto"``, which measures what is fastest; None is "auto" on a CPU, and "vmap" elsewhere.
        devices: the devices to split the runs over; None takes all of this host.
        callback: ``callback(done, total)``, called with numbers of runs after each chunk and each segment. After a
            segment ``done`` counts the parts of the runs at work, and need not be whole.
        tracker: called at the same times with a :class:`mixjax.sweeps.Record`: how far the sweep is, how many runs
            diverged, and each metric's mean over the chunk's finite runs. A tracker that raises is reported as a
            warning and not called again.
        checkpoint: folder for finished chunks and for the carries of unfinished ones (:class:`Segments`); ``~`` is the
            home folder. The same call finds them there and computes only what is missing; the result is bitwise that of
            a sweep without a break.
            Where saving each chunk would take more than 1 % of the time, several are saved together
            (:func:`mixjax.sweeps.saving.pauses` changes that). The folder stays: remove it when the result is safe.
            Several hosts (``jax.distributed``) need a folder that all of them see: each computes its share of the
            chunks, and all return the whole result.
        identity: name -> JSON value, compared with the values that the chunks in the folder were computed with. The
            arguments above, the data, the program, JAX's version, and the kind and number of the devices are compared
            in any case. An error names what differs.

    Returns:
        An ``xarray.Dataset``. Each metric has dims ``(*axes, "point", "seed", *dims[metric])``, "point" where there are
        ``points``, whose columns are coordinates along it. Vectors are coordinates twice: ``mixture`` has their
        numbers, ``[axis or point, mixture_0, ...]``, and ``mixture_label`` their texts, by which
        ``.sel(mixture_label="[0.5, 0.5]")`` selects along an axis. A run equals the same run of any other
        sweep within 1e-4, and bitwise at equal ``chunk`` and ``vectorize``. The attributes are about this call:

        - ``num_runs``, and ``num_computed``, the number of runs that this host computed now;
        - ``compile_seconds``, with the measurements of ``vectorize="auto"``, and ``run_seconds``;
        - ``vectorize``; where it was "auto", what was chosen;
        - ``chunk``, the number of runs in a chunk: after halving if memory ran out, 0 if nothing was left to compute.

    Raises:
        ValueError: no seeds, an empty axis, columns of different lengths, values that do not fit JAX's types, ``dims``
            that do not fit the metrics, several hosts without a ``checkpoint``, a ``checkpoint`` that is a URL.
        TypeError: metrics that are not a dict of arrays, or of dicts of arrays; a carry that changes its shapes.
        RuntimeError: another host failed; its own error is in its log.
        mixjax.sweeps.checkpoints.ChangedError: ``checkpoint`` holds chunks of another sweep; says what changed.
        MemoryError: a chunk of the size asked for, or with "auto" of one run a device, does not fit.
        OSError: the folder cannot be written; or (a BlockingIOError) another process or thread is at work there.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def train(key, hparams, data):
        ...     return {"error": hparams["step_size"] * jnp.abs(jax.random.normal(key)) + data}
        >>> result = mixjax.sweep(train, seeds=3, axes={"step_size": [0.0, 1.0]}, data=jnp.float32(2.0))
        >>> dict(result.error.sizes), float(result.error.sel(step_size=0.0, seed=1))
        ({'step_size': 2, 'seed': 3}, 2.0)
    """
    spec = Sweep(
        train,
        seeds=seeds,
        axes=axes,
        points=points,
        data=data,
        dims=dims,
        coords=coords,
        first_seed=first_seed,
        paired=paired,
        chunk=chunk,
        vectorize=vectorize,
        devices=devices,
    )
    return run(spec, callback=callback, tracker=tracker, checkpoint=checkpoint, identity=identity)


@outside_meshes()
def run(
    spec: Sweep,
    *,
    callback: Callback | None = None,
    tracker: Tracker | None = None,
    checkpoint: str | os.PathLike | None = None,
    identity: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """Runs a sweep that is described by a :class:`mixjax.sweeps.Sweep`.

    Args:
        spec: the sweep.
        callback: as :func:`sweep` takes it, like the arguments that follow.
        tracker: called with records.
        checkpoint: folder for finished chunks.
        identity: name -> JSON value that identifies the chunks.

    Returns:
        The dataset that :func:`sweep` returns.

    Raises:
        ValueError, TypeError, RuntimeError, ChangedError, MemoryError: as :func:`sweep` does.

    Example:
        >>> spec = Sweep(lambda key, hparams, data: {"x": hparams["a"]}, seeds=2, axes={"a": [0.0, 1.0]})
        >>> run(spec).x.values.tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    # A folder that cannot be used should show before the runs.
    folder = None if checkpoint is None else local_path("checkpoint", checkpoint)
    # Two threads would delete each other's unfinished files.
    with contextlib.nullcontext() if folder is None else claimed(folder):
        return _run(spec, callback, tracker, folder, identity)


def _run(spec, callback, tracker, folder, identity):
    """Runs a sweep in a folder that is this call's alone."""
    hosts = Hosts.here()
    if hosts.several and folder is None:
        raise ValueError("several hosts share their chunks through a folder: give a checkpoint folder that all see.")
    if isinstance(spec.train, HostLoop):
        done = run_on_host(spec, callback=callback, tracker=tracker, checkpoint=folder, identity=identity)
        return dataset(spec, done.runs, done.dims, done.metrics, done.attrs)
    prepared = Prepared.of(spec)
    runs = prepared.runs

    store, kept = None, {}
    if folder is not None:
        prepared = _as_begun(spec, prepared, folder)
        store, kept = _open_store(folder, identity_of(prepared, spec.chunk, identity or {}), hosts)
        _learn_from_last(spec, prepared, store, hosts)
    # One host may have found a chunk damaged that another could read: all hosts go by what the first one found.
    done = hosts.from_first(runs.covered(kept))
    kept = {first: metrics for first, metrics in kept.items() if done[first]}
    if not done.all():
        # Before anything is measured or compiled, which may take longer than a scheduler waits.
        with hosts.together():
            check_preempted()
    start = time.perf_counter()
    prepared = _settle(spec, prepared, int((~done).sum()), store, hosts)
    tuning_seconds = time.perf_counter() - start

    saver = Saver(store)
    progress = Progress(
        callback,
        tracker,
        total=runs.num,
        kept=kept,
        segments=num_segments(spec.train),
        time_axes=prepared.time_axes,
        domains=domains_of(prepared.dims, spec.coords or {}),
    )
    attrs = {
        "num_runs": runs.num,
        "num_computed": 0,
        "chunk": 0,
        "vectorize": prepared.vectorize,
        "compile_seconds": 0.0,
        "run_seconds": 0.0,
    }
    if not done.all():
        start = time.perf_counter()
        program = _compile(spec, prepared, store, hosts)
        attrs["compile_seconds"] = tuning_seconds + time.perf_counter() - start

        start = time.perf_counter()
        with hosts.watched(folder), hosts.together(), _noted(store, program.slots):
            executor = Executor(prepared, program, may_halve=spec.chunk == "auto", saver=saver, progress=progress)
            with saver.flushed():
                for chunk in executor.results(hosts.share(runs.chunks(done, executor.slots))):
                    kept[chunk.first] = chunk.metrics
                    attrs["num_computed"] += chunk.stop - chunk.first
                    saver.add(chunk.first, chunk.metrics)
                    progress.chunk(chunk.metrics)
            attrs["chunk"] = executor.slots
        attrs["run_seconds"] = time.perf_counter() - start
    if hosts.several:
        kept = _read_all_hosts(store, prepared, hosts)
    return dataset(spec, runs, prepared.dims, kept, attrs)


def _open_store(folder, identity, hosts):
    """Opens the store in a folder, and reads the chunks in it."""
    store = None
    with hosts.together():
        # The first host writes a new folder's identity before the others look for one.
        if hosts.is_first:
            store = Chunks(folder, identity)
    # No host goes on to write before all have read.
    with hosts.together():
        if store is None:
            store = Chunks(folder, identity)
        return store, store.read()


def _learn_from_last(spec, prepared, store, hosts):
    """Goes on with smaller chunks where the kernel killed the last attempt for memory, and says so."""
    # The first host reads the size when all have written theirs.
    with hosts.together():
        died_at = store.attempts.died_at
        if died_at is None:
            return
        if store.attempts.died_in == _MEASURING:
            # Only the first host measures.
            store.vectorize = "map"
            _LOG.warning(
                "%s: the last attempt was killed for memory while it measured how many runs to compute at once; going "
                "on with one after the other",
                store.folder,
            )
            return
        size = "one run" if died_at == 1 else f"{died_at} runs"
        said = f"{store.folder}: the last attempt was killed for memory at a chunk of {size}"
        smaller = prepared.halved(died_at)
        if spec.chunk == "auto" and smaller < died_at:
            smaller = store.shrink(smaller)
            _LOG.warning("%s; going on with %d", said, smaller)
        else:
            advice = "no chunk is smaller" if spec.chunk == "auto" else "give a smaller chunk"
            _LOG.warning("%s; %s, or the process more memory", said, advice)


def _noted(store, slots, what=None):
    """Notes the attempt in the folder while it is under way."""
    return contextlib.nullcontext() if store is None else store.attempts.noted(slots, what)


def _as_begun(spec, prepared, folder):
    """Returns the sweep as it was begun in a folder: one run after the other was the default on a CPU once."""
    if spec.vectorize is None and prepared.vectorize == "auto" and kept_identity(folder).get("vectorize") == "map":
        return dataclasses.replace(prepared, vectorize="map")
    return prepared


def _settle(spec, prepared, num_runs, store, hosts):
    """Replaces the ``vectorize`` "auto" by what is chosen, the same on all hosts and in all calls with one folder."""
    if prepared.vectorize != "auto":
        return prepared
    chosen = None
    with hosts.together():
        if hosts.is_first:
            chosen = None if store is None else store.vectorize
            if chosen is None and num_runs:
                # Numbers of runs that do not fit are tried too where the free memory is not what it seems.
                with _noted(store, 1, _MEASURING):
                    chosen = choose_vectorize(prepared, None if spec.chunk == "auto" else int(spec.chunk), num_runs)
                if store is not None:
                    store.vectorize = chosen
    # Hosts exchange numbers: 0 stands for "map", and -1 for no choice where nothing is left to compute.
    code = {None: -1, "map": 0}.get(chosen, chosen)
    code = int(hosts.from_first(np.asarray(code, np.int32)))
    return dataclasses.replace(prepared, vectorize={-1: "auto", 0: "map"}.get(code, code))


def _compile(spec, prepared, store, hosts):
    """Builds and compiles the program of a chunk of the size to start with."""
    slots = _choose_size(spec, prepared, store, hosts)
    with hosts.together():
        program = prepared.build(slots)
        program.compile()
        return program


def _choose_size(spec, prepared, store, hosts):
    """Returns the number of runs in a chunk to start with, the same on all hosts.

    The size that the user gave comes first, then the size that an earlier call of this sweep chose, then the largest
    size that fits.
    """
    if spec.chunk != "auto":
        return int(spec.chunk)
    slots = 0
    # The first host decides: free memory differs from host to host, and all must cut the runs into the same chunks.
    with hosts.together():
        if hosts.is_first:
            earlier = None if store is None else store.chunk_size
            slots = earlier or prepared.build_fitting().slots
            if store is not None:
                store.chunk_size = slots
    return int(hosts.from_first(np.int32(slots)))


def _read_all_hosts(store, prepared, hosts):
    """Reads the chunks that all hosts have written."""
    # Together: a host that returns may remove the folder, so all must have read it by then.
    with hosts.together():
        kept = store.read()
    if not prepared.runs.covered(kept).all():
        raise OSError(f"{store.folder}: a chunk is missing or damaged; the same call computes it again.")
    return kept


def dataset(
    spec: Sweep,
    runs: Runs,
    dims: Mapping[str, tuple[str, ...]],
    kept: Mapping[int, dict[str, np.ndarray]],
    attrs: Mapping[str, Any],
) -> xarray.Dataset:
    """Joins the chunks of a sweep into the dataset that the user gets.

    Args:
        spec: the sweep.
        runs: its runs.
        dims: metric -> names of its own dimensions.
        kept: number of a chunk's first run -> metrics ``[runs, ...]``; together the chunks cover all runs.
        attrs: the attributes.

    Returns:
        The dataset, as :func:`sweep` describes it.
    """
    # Not at the top: who looks at a spec or a dry run only should not wait for it.
    import xarray

    variables = {name: ((*runs.dims, *own), runs.joined(name, kept)) for name, own in dims.items()}
    # Of labels that belong to no metric and no vector, xarray would make a dimension of the dataset.
    used = {dim for own in dims.values() for dim in own} | runs.own_sizes.keys()
    coords = {name: values for name, values in (spec.coords or {}).items() if name in used}
    return indexed(xarray.Dataset(variables, runs.coords | coords, attrs))
