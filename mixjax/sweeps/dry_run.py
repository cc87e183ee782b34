"""Dry runs: a sweep is compiled, and one call of it run, to say what the whole would take."""

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
        num_chunks: number of calls; of segments, number of chunks, each of which takes a call a segment.
        num_devices: number of devices that a chunk is split over.
        bytes_per_device: memory that a call needs on each device.
        free_bytes: memory that each device has free, of which the sweep uses 0.8 at most. Simulated CPU devices share
            the host's.
        flops: operations of one run, see :func:`mixjax.sweeps.costs.flops`.
        compile_seconds: time that compiling took.
        run_seconds: estimate for the whole sweep, from the time of one call: with "map" one run a device; of
            :class:`mixjax.sweeps.Segments` one segment.
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
    """Sizes and times a sweep: compiles it, and runs one call.

    Args:
        sweep: its description.

    Returns:
        What it would take.

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
    # With "map" the runs of a device follow each other, so that one run a device tells enough.
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
    """Times ``num`` runs in one call, and estimates the time of all their segments from the first one."""
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    if isinstance(prepared.train, Segments):
        inputs = inputs._replace(state=program.start(inputs))
    # Compiled already, and `run` waits for the devices: this is the time of the computation alone.
    start = time.perf_counter()
    program.run(inputs)
    return num_segments(prepared.train) * (time.perf_counter() - start)


def _flops(prepared: Prepared) -> float:
    """Counts the operations of one run."""
    train, key, one, data = prepared.train, jax.random.key(0), prepared.hparams, prepared.data
    if not isinstance(train, Segments):
        return costs.flops(train, key, one, data)
    carry = jax.eval_shape(train.init, key, one, data)
    return costs.flops(train.init, key, one, data) + train.num * costs.flops(train.advance, carry, one, data)
