"""Seeds, hyperparameters and rules in one XLA program.

``train`` is an ordinary pure function of one run. :func:`sweep` compiles it once for a fixed number of runs, a chunk,
and calls that program until all runs are done; the last chunk is padded and its padding dropped. A longer sweep is
therefore the same program called more often, and a seed's run does not depend on the sweep it is in. With a
``checkpoint`` folder, finished chunks are kept on disk and a sweep that was killed goes on from there.
"""

import functools
import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax import checkpoints

__all__ = ["sweep"]

_CHUNK = 16
SAVE_EVERY = 5.0
"""Seconds of work that a kill can cost, where there is a checkpoint: saving more often would slow short chunks down."""


def sweep(
    train: Callable[[jax.Array, dict[str, jax.Array], Any], dict[str, jax.Array]],
    *,
    seeds: int,
    axes: Mapping[str, Sequence] | None = None,
    data: Any = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    first_seed: int = 0,
    batch_size: int | None = None,
    vectorize: str | None = None,
    callback: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
    identity: Mapping[str, Any] | None = None,
):
    """Runs ``train`` for every point of a grid and every seed.

    Args:
        train: ``train(key, hparams, data) -> metrics``, pure and jittable. ``key`` is ``jax.random.key(seed)``, the
            same for every grid point (paired seeds); ``hparams`` is a dict of scalars, one for each axis; ``metrics``
            is a dict of arrays. Pass functions that live on (not a new lambda each call) to reuse the compiled program.
        seeds: number of seeds, at least 1.
        axes: for each axis its values: numbers, or strings, in which case ``train`` gets the position (an int32, e.g.
            the index of :func:`mixjax.rules.select`) and the result is labelled with the strings.
        data: pytree handed to every run; an argument of the program, not a constant in it.
        dims: for each metric the names of its own dimensions.
        coords: labels along those dimensions.
        first_seed: the first seed.
        batch_size: runs a call of the compiled program (a chunk); the default is 16. Memory grows with it, and
            progress is reported between chunks.
        vectorize: ``"vmap"`` runs a chunk as one batch; ``"map"`` one after the other inside the program. The default
            is ``"map"`` on CPU, where batched small operations lose to a loop that stays in cache, and ``"vmap"`` on
            accelerators.
        callback: ``callback(done, total)``, called after each chunk.
        checkpoint: folder for finished chunks, written every five seconds of work and at the end. The same call finds
            them there and computes the others only; the result is bitwise that of a run without a break. The folder
            stays: remove it when the result is safe.
        identity: what else the chunks must have in common with this call, as JSON values by name, to be named in the
            error if they do not; the arguments above, the data, the compiled program, JAX's version and the device are
            compared in any case.

    Returns:
        An ``xarray.Dataset``. Each metric has dims ``(*axes, "seed", *dims[metric])``; attrs ``num_runs``,
        ``compile_seconds`` (0 where the program was at hand) and ``run_seconds``. A run equals the same run in any
        other sweep within 1e-4, and bitwise at equal ``batch_size``.

    Raises:
        ValueError: no seeds, an empty axis, ``dims`` that do not fit the metrics.
        TypeError: metrics that are not a dict of arrays.
        ImportError: xarray or, with a checkpoint, orbax is missing (extra ``experiments``).
        mixjax.checkpoints.ChangedError: ``checkpoint`` holds chunks of another sweep; says what changed.

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

    axes = {name: list(values) for name, values in (axes or {}).items()}
    batch_size = _CHUNK if batch_size is None else batch_size
    vectorize = vectorize or ("map" if jax.default_backend() == "cpu" else "vmap")
    if seeds < 1 or batch_size < 1 or not all(axes.values()):
        raise ValueError(f"seeds, batch_size and every axis need at least 1, got {seeds=}, {batch_size=}, {axes=}.")
    if vectorize not in ("map", "vmap"):
        raise ValueError(f"vectorize must be 'map' or 'vmap', got {vectorize!r}.")

    seed_values = np.arange(first_seed, first_seed + seeds, dtype=np.uint32)
    grid = np.meshgrid(*[_axis_array(values) for values in axes.values()], seed_values, indexing="ij")
    columns = [column.reshape(-1) for column in grid]
    hparams, run_seeds = dict(zip(axes, columns[:-1], strict=True)), columns[-1]
    num_runs = len(run_seeds)

    data = jax.tree.map(jnp.asarray, data)
    specs = {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in hparams.items()}
    metric_dims = _metric_dims(train, specs, data, dims or {}, coords or {})

    start = time.perf_counter()
    lowered = _lower(train, vectorize, batch_size, tuple(specs.items()), _Spec(data))
    store, kept = None, {}
    if checkpoint is not None:
        described = {"axes": axes, "seeds": seeds, "first_seed": first_seed, "batch_size": batch_size}
        described |= {
            "vectorize": vectorize,
            "data": _digest(data),
            "program (the code of train)": _fingerprint(lowered),
        }
        described |= {"jax": jax.__version__, "device": jax.devices()[0].device_kind, **(identity or {})}
        store = checkpoints.Chunks(checkpoint, described)
        kept = store.read()
    numbers = range(math.ceil(num_runs / batch_size))
    program = None if all(number in kept for number in numbers) else _compile(lowered)
    compile_seconds = time.perf_counter() - start

    start = saved = time.perf_counter()
    chunks, unsaved = [], {}
    for number in numbers:
        if number not in kept:
            rows = np.arange(number * batch_size, (number + 1) * batch_size)
            valid, rows = rows < num_runs, np.minimum(rows, num_runs - 1)
            metrics = program(valid, run_seeds[rows], {name: column[rows] for name, column in hparams.items()}, data)
            kept[number] = unsaved[number] = jax.tree.map(np.asarray, metrics)
        chunks.append(kept[number])
        if store is not None and (time.perf_counter() - saved > SAVE_EVERY or number == numbers[-1]):
            store.write(unsaved)
            unsaved, saved = {}, time.perf_counter()
        if callback is not None:
            callback(min((number + 1) * batch_size, num_runs), num_runs)

    shape = (*map(len, axes.values()), seeds)
    variables = {}
    for name, own in metric_dims.items():
        values = np.concatenate([chunk[name] for chunk in chunks])[:num_runs]
        variables[name] = ((*axes, "seed", *own), values.reshape(shape + values.shape[1:]))
    used = {dim for own in metric_dims.values() for dim in own}
    labels = {name: values for name, values in (coords or {}).items() if name in used}
    attrs = {"num_runs": num_runs, "compile_seconds": compile_seconds, "run_seconds": time.perf_counter() - start}
    return xarray.Dataset(variables, {**axes, "seed": seed_values.astype(int), **labels}, attrs)


def _axis_array(values):
    if all(isinstance(value, str) for value in values):
        return np.arange(len(values), dtype=np.int32)
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        return array if array.dtype == bool else array.astype(np.float32)
    if np.abs(array).max() >= 2**31:
        raise ValueError(f"integers of an axis must fit 32 bits, got {values}.")
    return array.astype(np.int32)


def _metric_dims(train, specs, data, dims, coords):
    """Each metric's own dimensions, checked before anything runs against the shapes ``train`` would return."""
    shapes = jax.eval_shape(train, jax.random.key(0), specs, data)
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
    names = [*specs, "seed", *sizes, *shapes]
    clashes = sorted({name for name in names if names.count(name) > 1})
    if clashes:
        raise ValueError(f"axes, 'seed', dims and metrics need different names, got {clashes} twice.")
    return named


class _Spec:
    """Structure, shapes and dtypes of a pytree, as a hashable key."""

    def __init__(self, tree):
        self.tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        leaves, treedef = jax.tree.flatten(self.tree)
        self.key = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key


@functools.lru_cache(maxsize=8)
def _lower(train, vectorize, batch_size, specs, data):
    """The program of one chunk; another one for a new ``train``, chunk size or data shape."""

    def run(valid, seed, hparams, data):
        def live():
            return train(jax.random.key(seed), hparams, data)

        if vectorize == "vmap":
            return live()
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(live))
        return jax.lax.cond(valid, live, lambda: empty)  # the padding of the last chunk costs nothing

    def chunk(valid, seeds, hparams, data):
        if vectorize == "vmap":
            return jax.vmap(run, in_axes=(0, 0, 0, None))(valid, seeds, hparams, data)
        return jax.lax.map(lambda row: run(*row, data), (valid, seeds, hparams))

    def rows(dtype):
        return jax.ShapeDtypeStruct((batch_size,), dtype)

    hparams = {name: rows(spec.dtype) for name, spec in specs}
    return jax.jit(chunk).lower(rows(bool), rows(jnp.uint32), hparams, data.tree)


@functools.lru_cache(maxsize=8)
def _compile(lowered):
    """The compiled program, once for each lowered one."""
    return lowered.compile()


def _fingerprint(lowered) -> str:
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def _digest(data) -> str:
    """Of the data's arrays; keys of ``jax.random`` count by their bits."""
    leaves = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(data)
    ]
    return checkpoints.digest({str(i): leaf for i, leaf in enumerate(leaves)})
