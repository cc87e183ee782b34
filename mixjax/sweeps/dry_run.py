"""Estimates the memory and the time that a sweep would take, from its compiled program and one call of it."""

from __future__ import annotations

import dataclasses
import math
import time

import jax
import numpy as np

from mixjax.sweeps import costs
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import Program
from mixjax.sweeps.segments import Segments, num_segments
from mixjax.sweeps.spec import Sweep

__all__ = ["DryRun", "dry_run"]


@dataclasses.dataclass(frozen=True)
class DryRun:
    """Holds the size of a sweep and the time it would take.

    Attributes:
        num_runs: points times seeds.
        chunk: number of runs in a call of the compiled program.
        num_chunks: number of chunks. A chunk takes one call, or with :class:`mixjax.sweeps.Segments` one a segment.
        num_devices: number of devices that a chunk is split over.
        bytes_per_device: memory that a call needs on each device.
        free_bytes: memory that each device has free, of which a chunk of "auto" takes 0.8 at most. Simulated CPU
            devices share the host's memory.
        flops: floating-point operations of one run, see :func:`mixjax.sweeps.costs.flops`.
        compile_seconds: time that tracing and compiling took.
        run_seconds: estimated time of the whole sweep, from the time of one call. With "map" that call computes one run
            a device, with :class:`mixjax.sweeps.Segments` one segment.
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


def dry_run(sweep: Sweep) -> DryRun:
    """Sizes and times a sweep: compiles its program, and calls the program once.

    Args:
        sweep: the sweep.

    Returns:
        The size of the sweep and the time it would take.

    Raises:
        ValueError, TypeError, MemoryError: as :func:`mixjax.sweep` does.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.sweeps import Sweep
        >>> def train(key, hparams, data):
        ...     return {"y": data @ data}
        >>> found = dry_run(Sweep(train, seeds=100, data=jnp.ones((8, 8)), chunk=16))
        >>> found.num_runs, found.num_chunks, found.flops   # 2 · 8³
        (100, 7, 1024.0)
    """
    prepared = Prepared.of(sweep)
    runs = prepared.runs
    start = time.perf_counter()
    program = prepared.build_fitting() if sweep.chunk == "auto" else prepared.build(int(sweep.chunk))
    program.compile()
    compile_seconds = time.perf_counter() - start

    num_chunks = len(runs.chunks(np.zeros(runs.num, bool), program.slots))
    # With "map" a device computes one run after the other, so that timing one run a device is enough.
    one_by_one = prepared.vectorize == "map"
    num_timed = min(program.num_devices if one_by_one else program.slots, runs.num)
    num_calls = math.ceil(runs.num / program.num_devices) if one_by_one else num_chunks
    return DryRun(
        num_runs=runs.num,
        chunk=program.slots,
        num_chunks=num_chunks,
        num_devices=program.num_devices,
        bytes_per_device=program.bytes_per_device(),
        free_bytes=prepared.free_bytes,
        flops=_flops(prepared),
        compile_seconds=compile_seconds,
        run_seconds=num_calls * _seconds(prepared, program, num_timed),
    )


def _seconds(prepared: Prepared, program: Program, num: int) -> float:
    """Times one call with ``num`` runs; with :class:`Segments`, the first segment times the number of segments."""
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    if isinstance(prepared.train, Segments):
        inputs = inputs._replace(state=program.start(inputs))
    # The program is compiled by now, and `run` waits for the devices: the clock measures the computation alone.
    start = time.perf_counter()
    program.run(inputs)
    return num_segments(prepared.train) * (time.perf_counter() - start)


def _flops(prepared: Prepared) -> float:
    """Counts the operations of one run."""
    train, key, hparams, data = prepared.train, jax.random.key(0), prepared.hparams, prepared.data
    if not isinstance(train, Segments):
        return costs.flops(train, key, hparams, data)
    carry = jax.eval_shape(train.init, key, hparams, data)
    return costs.flops(train.init, key, hparams, data) + train.num * costs.flops(train.advance, carry, hparams, data)
