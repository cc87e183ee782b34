"""Estimates the memory and the time that a sweep would take, from its compiled program and one call of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence

import jax
import numpy as np

from mixjax.sweeps import costs
from mixjax.sweeps.devices import outside_meshes
from mixjax.sweeps.executor import Executor
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import Program
from mixjax.sweeps.progress import Progress
from mixjax.sweeps.saving import Saver
from mixjax.sweeps.segments import Segments, num_calls, num_segments
from mixjax.sweeps.spec import Sweep
from mixjax.sweeps.tuning import part_seconds, settled

__all__ = ["DryRun", "dry_run"]

_AFFORDABLE_SECONDS = 0.5
"""A chunk that takes longer is not computed whole to be timed."""

_TIMED_SECONDS = 0.3
"""What is short is computed again and again for so long."""

_NUM_MEANS = 5
"""So many means of a chunk's times are taken."""


@dataclasses.dataclass(frozen=True)
class DryRun:
    """Holds the size of a sweep and the time it would take.

    Attributes:
        num_runs: points times seeds.
        chunk: number of runs in a call of the compiled program.
        num_chunks: number of chunks. A chunk takes one call, or with :class:`mixjax.sweeps.Segments` one a segment.
        num_devices: number of devices that a chunk is split over.
        bytes_per_device: memory that the sweep needs on each device at its peak, see
            :meth:`mixjax.sweeps.prepared.Prepared.bytes_per_device`; 0 where the backend has no analysis.
        free_bytes: memory that each device has free, of which a chunk of "auto" takes 0.8 at most. Simulated CPU
            devices share the host's memory in equal parts, and what an idle one leaves is the others'.
        flops: floating-point operations of one run, see :func:`mixjax.sweeps.costs.flops`.
        compile_seconds: time that tracing and compiling took, with the measurements of ``vectorize="auto"``.
        run_seconds: estimated time of the whole sweep, without saving, which takes 1 % of the time. Where a chunk takes
            half a second at most, a few are computed and timed; else one call, which with "map" computes one run a
            device, with :class:`mixjax.sweeps.Segments` one segment and what comes after the last one.
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


@outside_meshes()
def dry_run(sweep: Sweep) -> DryRun:
    """Sizes and times a sweep: compiles its program, and calls the program once, or a few times where that is quick.

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
    prepared = settled(prepared, None if sweep.chunk == "auto" else int(sweep.chunk), runs.num)
    program = prepared.build_fitting() if sweep.chunk == "auto" else prepared.build(int(sweep.chunk))
    program.compile()
    compile_seconds = time.perf_counter() - start

    chunks = runs.chunks(np.zeros(runs.num, bool), program.slots)
    return DryRun(
        num_runs=runs.num,
        chunk=program.slots,
        num_chunks=len(chunks),
        num_devices=program.num_devices,
        bytes_per_device=int(prepared.bytes_per_device(program)),
        free_bytes=prepared.free_bytes,
        flops=_flops(prepared),
        compile_seconds=compile_seconds,
        run_seconds=_run_seconds(prepared, program, chunks),
    )


def _run_seconds(prepared: Prepared, program: Program, chunks: Sequence[tuple[int, int]]) -> float:
    """Estimates the time of all chunks.

    A chunk takes a fixed time, in which runs are placed on the devices and metrics are copied back, and the time of its
    rounds. With "map" a device computes one run a round, with "vmap" all of them in a single round, and with a number
    of runs so many.
    """

    def num_rounds(num):
        return math.ceil(num / (program.num_devices * program.lanes))

    most = max(stop - first for first, stop in chunks)
    few = min(program.num_devices * program.lanes, most)
    # Only one round is computed, and of that one segment, where a whole chunk would take long.
    num = num_segments(prepared.train)
    if isinstance(prepared.train, Segments):
        num *= num_calls(prepared.train)
    per_round, per_chunk = num * part_seconds(prepared, program, few), 0.0
    per_round += _finish_seconds(prepared, program, few)
    if per_round * num_rounds(most) < _AFFORDABLE_SECONDS:
        per_round = _chunk_seconds(prepared, program, few)
        if num_rounds(most) > 1:
            more = max(_chunk_seconds(prepared, program, most) - per_round, 0.0) / (num_rounds(most) - 1)
            per_round, per_chunk = more, max(per_round - more, 0.0)
    return sum(per_chunk + per_round * num_rounds(stop - first) for first, stop in chunks)


def _finish_seconds(prepared: Prepared, program: Program, num: int) -> float:
    """Times what ``num`` runs do after their last segment."""
    if not isinstance(prepared.train, Segments) or prepared.train.finish is None:
        return 0.0
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    ready = inputs._replace(state=program.start(inputs))
    start = time.perf_counter()
    program.finish(ready, np.ones(num, bool))
    return time.perf_counter() - start


def _chunk_seconds(prepared: Prepared, program: Program, num: int) -> float:
    """Times a chunk of ``num`` runs with all that a sweep does for it."""
    progress = Progress(
        None,
        None,
        total=num,
        kept={},
        segments=num_segments(prepared.train),
        time_axes=prepared.time_axes,
    )
    executor = Executor(prepared, program, may_halve=False, saver=Saver(None), progress=progress)

    # Means over many calls, not the quickest one: on a busy machine, waiting for a core takes most of the time. Of
    # several means the median, which a single long wait does not move.
    def mean_seconds():
        num_calls, start = 0, time.perf_counter()
        while num_calls == 0 or time.perf_counter() - start < _TIMED_SECONDS / _NUM_MEANS:
            for chunk in executor.results([(0, num)]):
                progress.chunk(chunk.metrics)
            num_calls += 1
        return (time.perf_counter() - start) / num_calls

    return statistics.median(mean_seconds() for _ in range(_NUM_MEANS))


def _flops(prepared: Prepared) -> float:
    """Counts the operations of one run."""
    train, key, hparams, data = prepared.train, jax.random.key(0), prepared.hparams, prepared.data_shapes
    if not isinstance(train, Segments):
        return costs.flops(train, key, hparams, data)
    carry = jax.eval_shape(train.init, key, hparams, data)
    ends = 0.0 if train.finish is None else costs.flops(train.finish, carry, hparams, data)
    segments = train.num * num_calls(train) * costs.flops(train.advance, carry, hparams, data)
    return costs.flops(train.init, key, hparams, data) + segments + ends
