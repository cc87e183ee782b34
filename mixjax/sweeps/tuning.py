"""Measures how many runs a device should compute at once, on short calls of a sweep's program."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time

from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import OutOfMemoryError, Program
from mixjax.sweeps.segments import Segments, num_segments

__all__ = ["choose_lanes", "part_seconds", "settled"]

_LOG = logging.getLogger(__name__)

SHARE = 0.05
"""The part of a sweep's time that may be spent on measuring."""

_LADDER = (16, 64, 256)
"""The numbers of runs that are tried after 1, as long as each is faster than the one before."""

_BETWEEN = 4
"""The number that is tried where the first of these is not faster than 1."""

_FASTER = 0.95
"""A number is better if a run takes at most this part of the time: less could be noise."""

_TIMED_SECONDS, _NUM_CALLS = 0.3, 10
"""What is short is computed again for so long, and at most so many times."""


def choose_lanes(prepared: Prepared, chunk: int | None, num_runs: int) -> int:
    """Measures how many runs a device should compute at once.

    One run at once is measured first. Others follow only while compiling and calling one more program is not expected
    to take the measurements above a twentieth of the whole sweep's time. What was measured for a program is remembered
    with it, so that a later sweep in this process goes on from there.

    Args:
        prepared: the sweep.
        chunk: the number of runs in a chunk, or None where that is open.
        num_runs: the number of runs that are to be computed.

    Returns:
        The number with which a run takes the least time.
    """
    return _Search(prepared, chunk, num_runs).best()


def settled(prepared: Prepared, chunk: int | None, num_runs: int) -> Prepared:
    """Returns a sweep whose ``vectorize`` is measured where it was "auto"; see :func:`choose_lanes`."""
    if prepared.vectorize != "auto":
        return prepared
    return dataclasses.replace(prepared, vectorize=choose_lanes(prepared, chunk, num_runs))


class _Search:
    """Tries numbers of lanes while there is time; holds what one search knows."""

    def __init__(self, prepared: Prepared, chunk: int | None, num_runs: int):
        self._prepared, self._chunk = prepared, chunk
        devices = len(prepared.devices)
        self._most = math.ceil(min(prepared.runs.largest_group, chunk or math.inf) / devices)
        self._spent, self._dearest_build = 0.0, 0.0
        start = time.perf_counter()
        program = self._build(1)
        program.compile()
        self._dearest_build = time.perf_counter() - start
        signature = dataclasses.replace(program.signature, slots=0, vectorize="auto")
        # lanes -> seconds of a run on a device; one dict for all sweeps of equal programs.
        self._seconds = _measured(signature)
        if 1 not in self._seconds:
            self._seconds[1] = self._time(program)
        self._allowed = SHARE * self._seconds[1] * num_segments(prepared.train) * num_runs / devices

    def best(self) -> int:
        """Climbs from 1 in large steps; where the first step is none upwards, tries a smaller one."""
        best = 1
        for lanes in _LADDER:
            if best == self._most or not self._is_better(min(lanes, self._most), best):
                break
            best = min(lanes, self._most)
        if best == 1 and self._most > _BETWEEN and self._is_better(_BETWEEN, best):
            best = _BETWEEN
        _LOG.info("seconds of a run by the number at once: %s; going on with %d", self._seconds, best)
        return best

    def _is_better(self, lanes, best):
        """Tells whether a number was measured, or can be measured now, and is faster than the best one so far."""
        if lanes not in self._seconds and not self._measure(lanes, self._seconds[best]):
            return False
        return self._seconds[lanes] < _FASTER * self._seconds[best]

    def _measure(self, lanes, expected):
        """Compiles and times the program of a number of lanes; returns False where there is no time for it."""
        # One call computes `lanes` runs on each device.
        if self._spent + self._dearest_build + lanes * expected > self._allowed:
            return False
        start = time.perf_counter()
        program = self._build(lanes)
        fits = self._prepared.fits(program)
        self._dearest_build = max(self._dearest_build, time.perf_counter() - start)
        try:
            self._seconds[lanes] = self._time(program) if fits else math.inf
        except OutOfMemoryError:
            self._seconds[lanes] = math.inf
        self._spent += time.perf_counter() - start
        return True

    def _build(self, lanes) -> Program:
        prepared = dataclasses.replace(self._prepared, vectorize=lanes)
        return prepared.build_fitting() if self._chunk is None else prepared.build(self._chunk)

    def _time(self, program):
        """Times one batch on each device, and divides by its runs."""
        num = min(program.lanes * program.num_devices, self._prepared.runs.largest_group)
        return part_seconds(self._prepared, program, num) * program.num_devices / num


# The key holds the training function: few are kept, as with compiled programs.
@functools.lru_cache(maxsize=16)
def _measured(signature) -> dict[int, float]:
    """Returns the dict of what was measured for programs that differ in their lanes only."""
    del signature
    return {}


def part_seconds(prepared: Prepared, program: Program, num: int) -> float:
    """Times one call of a program: the whole of ``num`` runs, or one segment of them.

    Args:
        prepared: the sweep; its first ``num`` runs are computed.
        program: its program, compiled.
        num: number of runs, which share their labels.

    Returns:
        The seconds of the quickest of several calls where a call is short.
    """
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    seconds = []
    # The quickest of several: a single short call may have waited for a core much longer than it computed.
    while len(seconds) < _NUM_CALLS and sum(seconds) < _TIMED_SECONDS:
        # A segment's carry is donated, and makes a new one necessary.
        ready = inputs._replace(state=program.start(inputs)) if isinstance(prepared.train, Segments) else inputs
        # The program is compiled by now, and `run` waits for the devices: the clock measures the computation alone.
        start = time.perf_counter()
        program.run(ready)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
