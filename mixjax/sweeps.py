"""Seeds, hyperparameters and rules in one XLA program.

``train`` is an ordinary pure function of one run. :func:`sweep` compiles it once for a fixed number of runs, a chunk,
split over all devices, and calls that program until all runs are done; the last chunk is padded and its padding
dropped. A longer sweep is therefore the same program called more often, and a seed's run does not depend on the sweep
it is in. With a ``checkpoint`` folder, finished chunks are kept on disk and a sweep that was killed goes on from there;
several hosts share the chunks through that folder.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax import checkpoints
from mixjax.programs import OutOfMemoryError, Program, Spec, default_rows, fitting
from mixjax.runs import Runs, pieces, random_points
from mixjax.segments import History, Segments, diverged
from mixjax.tracking import Progress

__all__ = ["Segments", "diverged", "random_points", "sweep"]

_LOG = logging.getLogger(__name__)
SAVE_EVERY = 5.0
"""Seconds of work that a kill can cost, where there is a checkpoint: saving more often would slow short chunks down."""


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
            Labels as in ``axes``; positions count the different ones in order of appearance.
        data: pytree handed to every run; an argument of the program, not a constant in it.
        dims: for each metric the names of its own dimensions.
        coords: labels along those dimensions.
        first_seed: the first seed.
        chunk: runs a call of the compiled program, rounded up to a multiple of the devices. "auto" takes as many as fit
            the devices' memory by the compiler's analysis (with "map" 16 a device: more would gain nothing) and halves
            the chunk where memory runs out all the same. Progress is reported between chunks.
        vectorize: ``"vmap"`` runs a chunk as one batch on each device; ``"map"`` one after the other inside the
            program. The default is ``"map"`` on CPU, where batched small operations lose to a loop that stays in cache,
            and ``"vmap"`` on accelerators.
        devices: those to split the runs over; the default is all of this host. A CPU counts as one unless
            ``jax.config.update("jax_num_cpu_devices", n)`` was called before JAX's first use; `mixjax run` takes as
            many as there are cores.
        callback: ``callback(done, total)``, called after each chunk, and after each segment with the share done.
        track: called at the same times with a record for a tracker: ``done``, ``total``, ``segment``, ``segments``,
            ``seconds`` since the start, ``diverged`` (runs so far with a float that is not finite), and each metric's
            last value in time (the last along its last dimension, without segments) as a mean over the chunk's finite
            runs, by its name.
        checkpoint: folder for finished chunks and unfinished segments' carries, written every five seconds of work and
            at the end. The same call finds them there and computes the others only; the result is bitwise that of a run
            without a break. The folder stays: remove it when the result is safe. With several hosts
            (``jax.distributed``) it must be one that all see: each computes its share of the chunks there, and all
            return the whole result.
        identity: what else the chunks must have in common with this call, as JSON values by name, to be named in the
            error if they do not; the arguments above, the data, the compiled program, JAX's version and the device are
            compared in any case.

    Returns:
        An ``xarray.Dataset``. Each metric has dims ``(*axes, "point", "seed", *dims[metric])`` ("point" where there are
        ``points``, with their columns as coordinates along it); attrs ``num_runs``, ``compile_seconds`` (0 where the
        program was at hand), ``run_seconds`` and ``chunk``. A run equals the same run in any other sweep within 1e-4,
        and bitwise at equal ``chunk``.

    Raises:
        ValueError: no seeds, an empty axis, columns of different lengths, ``dims`` that do not fit the metrics, several
            hosts without a ``checkpoint``.
        TypeError: metrics that are not a dict of arrays; a carry that changes its shapes.
        ImportError: xarray or, with a checkpoint, orbax is missing (extra ``experiments``).
        mixjax.checkpoints.ChangedError: ``checkpoint`` holds chunks of another sweep; says what changed.
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

    vectorize = vectorize or ("map" if jax.default_backend() == "cpu" else "vmap")
    if vectorize not in ("map", "vmap"):
        raise ValueError(f"vectorize must be 'map' or 'vmap', got {vectorize!r}.")
    if chunk != "auto" and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk must be 'auto' or at least 1, got {chunk!r}.")
    if jax.process_count() > 1 and checkpoint is None:
        raise ValueError("several hosts share their chunks through a folder: give checkpoint, one that all see.")
    devices = tuple(jax.local_devices() if devices is None else devices)
    runs = Runs(axes or {}, points or {}, seeds, first_seed)
    data = jax.tree.map(jnp.asarray, data)
    hparams, labels = Spec(runs.batched_spec), Spec(runs.label_spec)
    metric_dims = _metric_dims(train, hparams.tree | labels.tree, data, runs.names, dims or {}, coords or {})

    def build(rows):
        return Program(train, rows, vectorize, devices, hparams, labels, Spec(data))

    start = time.perf_counter()
    store, kept = None, {}
    if checkpoint is not None:
        described = {"axes": runs.axes, "points": runs.points, "seeds": seeds, "first_seed": first_seed, "chunk": chunk}
        code = build(default_rows(devices) if chunk == "auto" else chunk).fingerprint
        described |= {"vectorize": vectorize, "data": _digest(data), "program (the code of train)": code}
        described |= {"jax": jax.__version__, "devices": f"{len(devices)} x {devices[0].device_kind}"}
        store = _opened(checkpoint, described | dict(identity or {}))
        kept = store.read()
        _meet("mixjax: chunks read")  # all hosts see the same ones, before any writes another
    done = runs.covered(kept)
    program = None
    if not done.all():
        program = _program(build, chunk, runs, vectorize, devices, store)
        program.compile()
    compile_seconds = time.perf_counter() - start

    start = time.perf_counter()
    progress, saver = Progress(callback, track, runs.num, kept), _Saver(store)
    todo = runs.chunks(done, program.rows)[jax.process_index() :: jax.process_count()] if program else []
    data = program.place(data) if program else None
    while todo:
        first, stop = todo[0]
        try:
            metrics = _run_chunk(program, train, runs, first, stop, data, store, progress)
        except OutOfMemoryError as error:
            if chunk != "auto" or program.rows <= program.num_devices:
                raise MemoryError(f"no memory for a chunk of {program.rows} runs: {error}") from error
            smaller = program.rows // 2
            _LOG.warning("no memory for a chunk of %d runs: going on with %d", program.rows, smaller)
            program, todo = build(smaller), [piece for part in todo for piece in pieces(*part, smaller)]
            if store is not None and jax.process_count() == 1:
                store.rows = program.rows
            continue
        todo = todo[1:]
        kept[first] = metrics
        saver.add(first, metrics)
        progress.chunk(metrics, train.num if isinstance(train, Segments) else 1)
    saver.flush()
    if jax.process_count() > 1:
        _meet("mixjax: chunks written")
        kept = store.read()
        _meet("mixjax: chunks read again")  # from here on the folder may go
        if not runs.covered(kept).all():
            raise OSError(f"{checkpoint}: a chunk is missing or damaged; the same call computes it again.")

    variables = {}
    for name, own in metric_dims.items():
        values = runs.unsorted(np.concatenate([kept[first][name] for first in sorted(kept)]))
        variables[name] = ((*runs.dims, *own), values.reshape(*runs.shape, *values.shape[1:]))
    used = {dim for own in metric_dims.values() for dim in own}
    own_coords = {name: values for name, values in (coords or {}).items() if name in used}
    attrs = {"num_runs": runs.num, "compile_seconds": compile_seconds, "run_seconds": time.perf_counter() - start}
    return xarray.Dataset(variables, runs.coords | own_coords, attrs)


def _metric_dims(train, hparams, data, names, dims, coords):
    """Each metric's own dimensions, checked before anything runs against the shapes ``train`` would return."""
    shapes = _metric_shapes(train, hparams, data)
    if not isinstance(shapes, dict):
        raise TypeError(f"train must return a dict of arrays, got {type(shapes).__name__}.")
    unknown = sorted(set(dims) - set(shapes))
    if unknown:
        raise ValueError(f"dims name metrics that train does not return: {unknown}; it returns {sorted(shapes)}.")
    named = {}
    for name, shape in shapes.items():
        named[name] = tuple(dims.get(name, [f"{name}_{i}" for i in range(shape.ndim)]))
        if len(named[name]) != shape.ndim:
            raise ValueError(f"metric {name!r} has shape {shape.shape}, which does not fit dims {named[name]}.")
    sizes = {}
    for name, shape in shapes.items():
        for dim, size in zip(named[name], shape.shape, strict=True):
            expected = sizes.setdefault(dim, len(coords[dim]) if dim in coords else size)
            if size != expected:
                raise ValueError(
                    f"metric {name!r} has {size} entries along {dim!r}, its coords or another metric {expected}."
                )
    names = [*names, *sizes, *shapes]
    clashes = sorted({name for name in names if names.count(name) > 1})
    if clashes:
        raise ValueError(f"axes, 'seed', dims and metrics need different names, got {clashes} twice.")
    return named


def _metric_shapes(train, hparams, data):
    """What one run returns; of :class:`Segments` all segments together."""
    if not isinstance(train, Segments):
        return jax.eval_shape(train, jax.random.key(0), hparams, data)
    if train.num < 1:
        raise ValueError(f"num must be at least 1 segment, got {train.num}.")
    carry = jax.eval_shape(train.init, jax.random.key(0), hparams, data)
    after, shapes = jax.eval_shape(train.advance, carry, hparams, data)
    if Spec(carry) != Spec(after):
        raise TypeError(f"advance must return a carry like the one it got, {carry}, got {after}.")
    if not isinstance(shapes, dict):
        return shapes
    for name, x in shapes.items():
        if x.ndim == 0:
            raise ValueError(f"metric {name!r} of a segment needs time as its first dimension, got a scalar.")
    return {name: jax.ShapeDtypeStruct((train.num * x.shape[0], *x.shape[1:]), x.dtype) for name, x in shapes.items()}


def _opened(folder, identity):
    """The store; with several hosts the first one makes it before the others look."""
    if jax.process_index():
        _meet("mixjax: folder made")
    store = checkpoints.Chunks(folder, identity)
    if not jax.process_index():
        _meet("mixjax: folder made")
    return store


def _program(build, chunk, runs, vectorize, devices, store):
    """The program of the size asked for, of the size this sweep chose before, or else of the best one."""
    if chunk != "auto":
        return build(chunk)
    rows = store.rows if store is not None else None
    if rows is None and not jax.process_index():
        program = fitting(build, runs.largest_group, vectorize, devices)
        rows = program.rows
        if store is not None:
            store.rows = rows
    _meet("mixjax: chunk chosen")
    return build(rows or store.rows)


def _meet(place):
    """Waits until all hosts are here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def _run_chunk(program, train, runs, first, stop, data, store, progress):
    """The metrics of runs ``first`` to ``stop``; those of a :class:`Segments` go on from their last carry on disk."""
    num = stop - first
    hparams = program.place_rows({name: column[first:stop] for name, column in runs.batched.items()})
    shared = hparams, program.place(runs.labels(first)), data
    valid, seeds = program.valid(num), program.place_rows(runs.seeds[first:stop])
    if not isinstance(train, Segments):
        return program.take_rows(program.run(valid, seeds, *shared), num)

    kept = store and store.read_carry(first)
    history = History(train, kept)
    carry = program.place_rows(program.carry(kept[1])) if kept else program.start(valid, seeds, *shared)
    saved = time.perf_counter()
    while history.segments < train.num:
        carry, metrics = program.run(valid, carry, *shared)
        history.add(program.take_rows(metrics, num))
        if history.segments == train.num:
            break
        progress.segment(history.last, history.segments, train.num)
        if store is not None and time.perf_counter() - saved > SAVE_EVERY:
            leaves = jax.tree.leaves(program.take_rows(carry, num))
            arrays = {f"carry {i}": leaf for i, leaf in enumerate(leaves)}
            store.write_carry(first, history.segments, history.arrays() | arrays)
            saved = time.perf_counter()
    return history.metrics()


class _Saver:
    """Writes finished chunks together, every few seconds."""

    def __init__(self, store):
        self._store, self._unsaved, self._saved = store, {}, time.perf_counter()

    def add(self, first, metrics):
        if self._store is not None:
            self._unsaved[first] = metrics
            if time.perf_counter() - self._saved > SAVE_EVERY:
                self.flush()

    def flush(self):
        if self._unsaved:
            self._store.write(self._unsaved)
        self._unsaved, self._saved = {}, time.perf_counter()


def _digest(data) -> str:
    """Of the data's arrays; keys of ``jax.random`` count by their bits."""
    leaves = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(data)
    ]
    return checkpoints.digest({str(i): leaf for i, leaf in enumerate(leaves)})
