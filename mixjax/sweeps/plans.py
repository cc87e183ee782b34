"""What a sweep is going to do, known before it does it."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps import costs
from mixjax.sweeps.devices import free_bytes
from mixjax.sweeps.programs import Program, Spec, fitting
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.segments import Segments

__all__ = ["Plan", "Setup", "plan"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What :func:`plan` finds.

    Attributes:
        num_runs: points times seeds.
        chunk: runs a call.
        num_chunks: calls.
        num_devices: over which a chunk is split.
        bytes_per_device: what a call needs on each.
        free_bytes: what each has free, of which 0.8 are used at most (simulated CPU devices share the host's memory).
        flops: of one run, by :func:`mixjax.sweeps.costs.flops`.
        compile_seconds: measured.
        run_seconds: estimate of the whole sweep, from the time of one call (with "map" of one run a device; of
            :class:`mixjax.sweeps.Segments` one segment).
    """

    num_runs: int
    chunk: int
    num_chunks: int
    num_devices: int
    bytes_per_device: int
    free_bytes: float
    flops: float
    compile_seconds: float
    run_seconds: float


def plan(
    train: Callable | Segments,
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
) -> Plan:
    """Sizes and times :func:`mixjax.sweep` of the same arguments: compiles it, and runs one call.

    Args:
        train: and all others, as :func:`mixjax.sweep` takes them.

    Returns:
        The plan.

    Raises:
        ValueError, TypeError, MemoryError: as :func:`mixjax.sweep` does.

    Example:
        >>> import jax.numpy as jnp
        >>> made = plan(lambda key, hparams, data: {"y": data @ data}, seeds=100, data=jnp.ones((8, 8)), chunk=16)
        >>> made.num_runs, made.num_chunks, made.flops   # 2 · 8³
        (100, 7, 1024.0)
    """
    setup = Setup.of(train, seeds, axes, points, data, dims, coords, first_seed, chunk, vectorize, devices)
    runs, labels = setup.runs, setup.labels
    start = time.perf_counter()
    program = setup.fitting() if chunk == "auto" else setup.build(chunk)
    program.compile()
    compile_seconds = time.perf_counter() - start

    alone = setup.vectorize == "map"
    num = min(program.num_devices if alone else program.rows, runs.num)
    valid, carry, *shared = setup.arguments(program, 0, num, program.place(setup.data))
    segments = 1
    if isinstance(train, Segments):
        carry, segments = program.start(valid, carry, *shared), train.num
    start = time.perf_counter()
    program.run(valid, carry, *shared)
    seconds = segments * (time.perf_counter() - start)

    num_chunks = len(runs.chunks(np.zeros(runs.num, bool), program.rows))
    calls = math.ceil(runs.num / program.num_devices) if alone else num_chunks
    one = labels.tree | setup.hparams.tree
    if isinstance(train, Segments):
        carry = jax.eval_shape(train.init, jax.random.key(0), one, setup.data)
        count = costs.flops(train.init, jax.random.key(0), one, setup.data)
        count += train.num * costs.flops(train.advance, carry, one, setup.data)
    else:
        count = costs.flops(train, jax.random.key(0), one, setup.data)
    return Plan(
        num_runs=runs.num,
        chunk=program.rows,
        num_chunks=num_chunks,
        num_devices=program.num_devices,
        bytes_per_device=program.bytes_per_device(),
        free_bytes=setup.free_bytes,
        flops=count,
        compile_seconds=compile_seconds,
        run_seconds=calls * seconds,
    )


@dataclasses.dataclass(frozen=True)
class Setup:
    """A sweep's arguments, checked: its runs, its metrics' dimensions and how to build its program."""

    train: Callable | Segments
    runs: Runs
    data: Any
    dims: dict[str, tuple[str, ...]]
    vectorize: str
    devices: tuple[jax.Device, ...]
    free_bytes: float
    hparams: Spec
    labels: Spec

    @classmethod
    def of(cls, train, seeds, axes, points, data, dims, coords, first_seed, chunk, vectorize, devices):
        """From the arguments of :func:`mixjax.sweep`."""
        devices = tuple(jax.local_devices() if devices is None else devices)
        if not devices or any(device.process_index != jax.process_index() for device in devices):
            raise ValueError(f"devices must be some of jax.local_devices(), got {devices}.")
        vectorize = vectorize or ("map" if devices[0].platform == "cpu" else "vmap")
        if vectorize not in ("map", "vmap"):
            raise ValueError(f"vectorize must be 'map' or 'vmap', got {vectorize!r}.")
        if chunk != "auto" and (not isinstance(chunk, (int, np.integer)) or chunk < 1):
            raise ValueError(f"chunk must be 'auto' or at least 1, got {chunk!r}.")
        try:
            hash(train)
        except TypeError as error:
            raise TypeError(f"train is kept with its compiled program and must be hashable: {error}.") from error
        runs = Runs(axes or {}, points or {}, seeds, first_seed)
        there = [x for x in jax.tree.leaves(data) if isinstance(x, jax.Array) and devices[0] in x.devices()]
        free = free_bytes(devices) + sum(x.nbytes for x in there)  # the program's arguments have them
        data = jax.tree.map(jnp.asarray, data)
        hparams, labels = Spec(runs.batched_spec), Spec(runs.label_spec)
        named = _metric_dims(train, hparams.tree | labels.tree, data, runs.names, dims or {}, coords or {})
        return cls(train, runs, data, named, vectorize, devices, free, hparams, labels)

    @property
    def num_segments(self) -> int:
        """Calls of the program that a run takes."""
        return self.train.num if isinstance(self.train, Segments) else 1

    @property
    def time_axes(self) -> dict[str, int | None]:
        """Of each metric, among its own dimensions: the first, of segments; else one named "step" or "time"."""
        if isinstance(self.train, Segments):
            return dict.fromkeys(self.dims, 0)
        return {
            name: next((i for i, dim in enumerate(dims) if dim in ("step", "time")), None)
            for name, dims in self.dims.items()
        }

    @property
    def stop_fingerprint(self) -> str | None:
        """Of the code of a :class:`Segments`' ``stop``."""
        if self.train.stop is None:
            return None
        *_, metrics = _segment(self.train, self.hparams.tree | self.labels.tree, self.data)
        return hashlib.sha256(jax.jit(self.train.stop).lower(metrics).as_text().encode()).hexdigest()

    def build(self, rows: int) -> Program:
        """The program of a chunk of so many runs."""
        return Program(self.train, rows, self.vectorize, self.devices, self.hparams, self.labels, Spec(self.data))

    def arguments(self, program: Program, first: int, stop: int, data: Any) -> tuple[Any, ...]:
        """``(valid, seeds, hparams, labels, data)`` of runs ``first`` to ``stop``, on the devices, as ``data`` is."""
        hparams = {name: column[first:stop] for name, column in self.runs.batched.items()}
        return (
            program.valid(stop - first),
            program.place_rows(self.runs.seeds[first:stop]),
            program.place_rows(hparams),
            program.place(self.runs.labels(first)),
            data,
        )

    def fitting(self) -> Program:
        """That of the largest chunk that fits."""
        return fitting(self.build, self.runs.largest_group, self.vectorize, len(self.devices), self.free_bytes)


def _metric_dims(train, hparams, data, names, dims, coords):
    """Each metric's own dimensions, checked before anything runs against the shapes ``train`` would return."""
    shapes = _metric_shapes(train, hparams, data)
    if not isinstance(shapes, dict):
        raise TypeError(f"train must return a dict of arrays, got {type(shapes).__name__}.")
    if not shapes:
        raise ValueError("train returned no metric.")
    unknown = sorted(set(dims) - set(shapes))
    if unknown:
        raise ValueError(f"dims name metrics that train does not return: {unknown}; it returns {sorted(shapes)}.")
    named = {}
    for name, shape in shapes.items():
        if isinstance(dims.get(name), str):
            raise ValueError(f"dims of {name!r} must be a tuple of names, got {dims[name]!r}.")
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
    if not isinstance(train.num, int | np.integer) or train.num < 1:
        raise ValueError(f"num must be an integer, at least 1 segment, got {train.num}.")
    carry, after, shapes = _segment(train, hparams, data)
    if Spec(carry) != Spec(after):
        raise TypeError(f"advance must return a carry like the one it got, {carry}, got {after}.")
    if not isinstance(shapes, dict):
        return shapes
    for name, x in shapes.items():
        if x.ndim == 0:
            raise ValueError(f"metric {name!r} of a segment needs time as its first dimension, got a scalar.")
    if train.stop is not None:
        done = jax.eval_shape(train.stop, shapes)
        if getattr(done, "shape", None) != () or done.dtype != bool:
            raise TypeError(f"stop must return one bool, got {done}.")
    return {name: jax.ShapeDtypeStruct((train.num * x.shape[0], *x.shape[1:]), x.dtype) for name, x in shapes.items()}


def _segment(train, hparams, data):
    """The carry before one segment of one run, that after it, and its metrics, as their shapes."""
    carry = jax.eval_shape(train.init, jax.random.key(0), hparams, data)
    return carry, *jax.eval_shape(train.advance, carry, hparams, data)
