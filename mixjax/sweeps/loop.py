"""The loop of a sweep: chunk after chunk, until all runs are done."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mixjax.sweeps import checkpoints
from mixjax.sweeps.plans import Setup
from mixjax.sweeps.programs import OutOfMemoryError, bits, default_rows
from mixjax.sweeps.progress import Progress
from mixjax.sweeps.runs import pieces
from mixjax.sweeps.segments import History, Segments

__all__ = ["sweep"]

_LOG = logging.getLogger(__name__)
SAVE_SHARE, SAVE_EVERY = 0.01, 60.0
"""Of its time, what a sweep with a checkpoint spends on saving at most; and the most seconds from one save to the next,
whatever that takes. A kill costs the work since the last save: with saves of 6 ms, 0.6 s, or the chunk at work."""


def sweep(
    train: Callable[[jax.Array, dict[str, jax.Array], Any], dict[str, jax.Array]] | Segments,
    *,
    seeds: int,
    axes: Mapping[str, Sequence] | None = None,
    points: Mapping[str, Sequence] | None = None,
    data: Any = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    first_seed: int = 0,
    chunk: int | str = "auto",
    vectorize: str | None = None,
    devices: Sequence[jax.Device] | None = None,
    callback: Callable[[float, int], None] | None = None,
    track: Callable[[dict[str, Any]], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
    identity: Mapping[str, Any] | None = None,
):
    """Runs ``train`` for every point of a grid, or of a list, and every seed.

    Args:
        train: ``train(key, hparams, data) -> metrics``, pure and jittable. ``key`` is ``jax.random.key(seed)``, the
            same for every grid point (paired seeds); ``hparams`` is a dict of scalars, one for each axis and each
            column of ``points``; ``metrics`` is a dict of arrays. Pass functions that live on (not a new lambda each
            call) to reuse the compiled program. Or :class:`Segments`, which cuts a run in time.
        seeds: number of seeds, at least 1.
        axes: for each axis its values: numbers, or strings, labels. ``train`` gets a label's position (an int32, e.g.
            the index of :func:`mixjax.rules.select`) and the result has the strings. The runs of a chunk share their
            labels, so that a ``lax.switch`` over them runs one branch, under ``vmap`` too.
        points: columns of one length, each row of which is a point: explicit ones, or those of :func:`random_points`.
            Labels as in ``axes``; positions count the different ones in order of appearance, or in the order that
            :class:`Labels` gives, as those of :func:`random_points` do.
        data: pytree handed to every run; an argument of the program, not a constant in it.
        dims: for each metric the names of its own dimensions.
        coords: labels along those dimensions.
        first_seed: the first seed; the last must be below 2³².
        chunk: runs a call of the compiled program, rounded up to a multiple of the devices. "auto" takes as many as fit
            the devices' memory by the compiler's analysis (with "map" 16 a device: more would gain nothing) and halves
            the chunk where memory runs out all the same. Progress is reported between chunks.
        vectorize: ``"vmap"`` runs a chunk as one batch on each device; ``"map"`` one after the other inside the
            program. The default is ``"vmap"`` on accelerators and ``"map"`` on CPU, where batches of larger runs leave
            the cache: figure 1 at full size then takes 1.4 times as long. Try both there: for small linear models
            ``"vmap"`` takes a quarter of the time of ``"map"`` (`python -m experiments.benchmarks seeds throughput`).
        devices: those to split the runs over; the default is all of this host. A CPU counts as one unless
            ``jax.config.update("jax_num_cpu_devices", n)`` was called before JAX's first use; `mixjax run` takes as
            many as there are cores.
        callback: ``callback(done, total)``, called after each chunk, and after each segment with the share done.
        track: called at the same times with a ``Record`` of :mod:`mixjax.sweeps.progress`: how far the sweep is, how
            many runs diverged, and each metric's mean over the chunk's finite runs. One that raises is reported as a
            warning and not called again.
        checkpoint: folder for finished chunks and unfinished segments' carries. Both are written when they are there,
            but for those that come so fast that saving would take more than 1 % of the time: they wait for each other,
            0.6 s where a save takes 6 ms. The same call finds them there and computes the others only; the result is
            bitwise that of a run without a break. The folder stays: remove it when the result is safe. With several
            hosts (``jax.distributed``) it must be one that all see: each computes its share of the chunks there, and
            all return the whole result.
        identity: what else the chunks must have in common with this call, as JSON values by name, to be named in the
            error if they do not; the arguments above, the data, the program, JAX's version, and the kind and number of
            the devices are compared in any case.

    Returns:
        An ``xarray.Dataset``. Each metric has dims ``(*axes, "point", "seed", *dims[metric])`` ("point" where there are
        ``points``, with their columns as coordinates along it); attrs ``num_runs``, ``num_computed`` (by this call, on
        this host), ``compile_seconds`` and ``run_seconds`` of this call, ``vectorize``, and the size ``chunk`` (the
        last one, if it was halved; 0 where nothing was left to compute). A run equals the same run in any other sweep
        within 1e-4, and bitwise at equal ``chunk``.

    Raises:
        ValueError: no seeds, an empty axis, columns of different lengths, values that do not fit JAX's types, ``dims``
            that do not fit the metrics, several hosts without a ``checkpoint``.
        TypeError: metrics that are not a dict of arrays; a carry that changes its shapes.
        RuntimeError: another host failed; its own error is in its log.
        ImportError: xarray or, with a checkpoint, orbax is missing (extra ``experiments``).
        mixjax.sweeps.checkpoints.ChangedError: ``checkpoint`` holds chunks of another sweep; says what changed.
        MemoryError: a chunk of the size asked for, or with "auto" of one run a device, does not fit.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def train(key, hparams, data):
        ...     return {"error": hparams["step_size"] * jnp.abs(jax.random.normal(key)) + data}
        >>> result = mixjax.sweep(train, seeds=3, axes={"step_size": [0.0, 1.0]}, data=jnp.float32(2.0))
        >>> dict(result.error.sizes), float(result.error.sel(step_size=0.0, seed=1))
        ({'step_size': 2, 'seed': 3}, 2.0)
    """
    try:
        import xarray
    except ImportError as error:
        raise ImportError("mixjax.sweep needs xarray: pip install 'mixjax[experiments]'") from error

    if jax.process_count() > 1 and checkpoint is None:
        raise ValueError("several hosts share their chunks through a folder: give checkpoint, one that all see.")
    setup = Setup.of(train, seeds, axes, points, data, dims, coords, first_seed, chunk, vectorize, devices)
    runs, chunk = setup.runs, chunk if chunk == "auto" else int(chunk)

    store, kept = None, {}
    if checkpoint is not None:
        store, kept = _opened(checkpoint, _identity(setup, chunk, identity or {}))
    done = _of_first(runs.covered(kept))
    kept = {first: metrics for first, metrics in kept.items() if done[first]}
    progress = Progress(callback, track, runs.num, kept, setup.num_segments, setup.time_axes)
    saver, program, num_computed, start = _Saver(store), None, 0, time.perf_counter()
    if not done.all():
        rows = _rows(setup, chunk, store)
        with _together():
            program = setup.build(rows)
            program.compile()
    compile_seconds = time.perf_counter() - start if program else 0.0
    start = time.perf_counter()
    with _together():
        todo = runs.chunks(done, program.rows)[jax.process_index() :: jax.process_count()] if program else []
        data = program.place(setup.data) if program else None
        while todo:
            first, stop = todo[0]
            try:
                metrics = _run_chunk(program, setup, first, stop, data, saver, progress)
            except OutOfMemoryError as error:
                if chunk != "auto" or program.rows <= program.num_devices:
                    raise MemoryError(f"no memory for a chunk of {program.rows} runs: {error}") from error
                _LOG.warning("no memory for a chunk of %d runs: going on with %d", program.rows, program.rows // 2)
                program = setup.build(program.rows // 2)
                todo = [piece for part in todo for piece in pieces(*part, program.rows)]
                if store is not None:  # of several hosts, the least that any has found
                    store.rows = min(store.rows or program.rows, program.rows)
                continue
            todo = todo[1:]
            kept[first] = metrics
            num_computed += stop - first
            saver.add(first, metrics)
            progress.chunk(metrics)
        saver.flush()
    run_seconds = time.perf_counter() - start
    if jax.process_count() > 1:
        with _together():  # from here on the folder may go
            kept = store.read()
        if not runs.covered(kept).all():
            raise OSError(f"{checkpoint}: a chunk is missing or damaged; the same call computes it again.")

    variables = {name: ((*runs.dims, *own), runs.joined(name, kept)) for name, own in setup.dims.items()}
    used = {dim for own in setup.dims.values() for dim in own}
    own_coords = {name: values for name, values in (coords or {}).items() if name in used}
    attrs = {"num_runs": runs.num, "num_computed": num_computed, "chunk": program.rows if program else 0}
    attrs |= {"vectorize": setup.vectorize, "compile_seconds": compile_seconds, "run_seconds": run_seconds}
    return xarray.Dataset(variables, runs.coords | own_coords, attrs)


def _identity(setup, chunk, own):
    """What the chunks in a folder must have in common, by the names that an error gives them."""
    runs, train = setup.runs, setup.train
    described = {"axes": runs.axes, "points": runs.points, "labels": runs.names_of}
    described |= {"seeds": runs.shape[-1], "first_seed": int(runs.coords["seed"][0]), "chunk": chunk}
    program = setup.build(default_rows(setup.devices) if chunk == "auto" else chunk)
    described |= {"vectorize": setup.vectorize, "data": _digest(setup.data)}
    described |= {"program (the code of train)": program.fingerprint}
    if isinstance(train, Segments):
        described |= {"segments": train.num, "stop": setup.stop_fingerprint}
    described |= {"jax": jax.__version__, "devices": f"{len(setup.devices)} x {setup.devices[0].device_kind}"}
    if taken := sorted(set(described) & set(own)):
        raise ValueError(f"identity: {taken} are compared anyway; give other names.")
    return dict(own) | described  # an error names the caller's own first


def _opened(folder, identity):
    """The store and its chunks; with several hosts the first one makes it before the others look."""
    store = None
    with _together():
        if not jax.process_index():
            store = checkpoints.Chunks(folder, identity)
    with _together():  # none writes before all have read
        store = store or checkpoints.Chunks(folder, identity)
        return store, store.read()


def _rows(setup, chunk, store):
    """The size asked for, the size this sweep chose before, or else the best one: that of the first host."""
    if chunk != "auto":
        return chunk
    rows = 0
    with _together():
        if not jax.process_index():
            rows = (store and store.rows) or setup.fitting().rows
            if store is not None:
                store.rows = rows
    return int(_of_first(np.int32(rows)))


def _of_first(array):
    """The first host's array."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(array.astype(np.int32))).astype(array.dtype)


@contextlib.contextmanager
def _together():
    """What all hosts do, and wait for each other at its end; the error of one is an error of all."""
    failure = None
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        _LOG.error(
            "host %d failed; it waits for the others to finish their chunks", jax.process_index(), exc_info=error
        )
        failure = error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(failure is not None)))
        if failure is not None:
            raise failure
        if failed.size:
            raise RuntimeError(f"host {failed[0]} failed, see its log; the same call goes on from the chunks on disk.")


def _run_chunk(program, setup, first, stop, data, saver, progress):
    """The metrics of runs ``first`` to ``stop``; those of a :class:`Segments` go on from their last carry on disk."""
    train, num = setup.train, stop - first
    valid, seeds, *shared = setup.arguments(program, first, stop, data)
    if not isinstance(train, Segments):
        return program.take_rows(program.run(valid, seeds, *shared), num)

    kept = saver.store and saver.store.read_carry(first)
    if kept and len(kept[1]["done"]) != num:  # that of a larger chunk, before memory ran out
        kept = None
    history = History(train, kept)
    carry = program.place_rows(program.carry(kept[1])) if kept else program.start(valid, seeds, *shared)
    while history.segments < train.num:
        carry, metrics = program.run(valid, carry, *shared)
        history.add(program.take_rows(metrics, num))
        if history.segments == train.num:
            break
        progress.segment(history.last, history.segments)
        if saver.due:
            with saver.timed():
                leaves = jax.tree.leaves(program.take_rows(carry, num))
                arrays = {f"carry {i}": leaf for i, leaf in enumerate(leaves)}
                saver.store.write_carry(first, history.segments, history.arrays() | arrays)
    return history.metrics()


class _Saver:
    """Writes finished chunks and carries, those together that come too fast."""

    def __init__(self, store):
        self.store, self._unsaved, self._took, self._ended = store, {}, 0.0, 0.0

    @property
    def due(self):
        """Whether there is a store, and the last save is long enough ago."""
        pause = min(self._took / SAVE_SHARE, SAVE_EVERY)
        return self.store is not None and time.perf_counter() - self._ended >= pause

    def add(self, first, metrics):
        if self.store is not None:
            self._unsaved[first] = metrics
        if self.due:
            self.flush()

    def flush(self):
        if self._unsaved:
            with self.timed():
                self.store.write(self._unsaved)
            self._unsaved = {}

    @contextlib.contextmanager
    def timed(self):
        """A save, whose time sets the next one's."""
        start = time.perf_counter()
        yield
        self._ended = time.perf_counter()
        self._took = self._ended - start


def _digest(data) -> str:
    """Of the data's arrays; keys of ``jax.random`` count by their bits."""
    return checkpoints.digest({str(i): bits(leaf) for i, leaf in enumerate(jax.tree.leaves(data))})
