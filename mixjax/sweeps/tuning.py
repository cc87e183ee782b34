"""Measures how many runs a device should compute at once, on short calls of a sweep's program."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import OutOfMemoryError, Program
from mixjax.sweeps.segments import Segments, num_calls, num_segments
from mixjax.sweeps.spec import Vectorize

__all__ = ["choose_vectorize", "part_seconds", "settled"]

_LOG = logging.getLogger(__name__)

SHARE, LEAST_SECONDS, MOST_SHARE = 0.05, 3.0, 0.2
"""The part of a sweep's time that may be spent on measuring; of short sweeps up to so many seconds, or such a part."""

SHORT_SECONDS = 10.0
"""A shorter sweep is not measured: its result should not depend on how busy the machine is."""

_LADDER = (4, 16, 64, 256, 1024)
"""The numbers of runs that are tried beside "map"."""

_FASTER = 0.95
"""A number is better if a run takes at most this part of the time: less could be noise."""

_DEARER = 2.0
"""The program of a batch took up to so many times as long to compile as that of one run."""

_TIMED_SECONDS = 0.3
"""What is short is computed again and again for so long."""


def choose_vectorize(prepared: Prepared, chunk: int | None, num_runs: int) -> Vectorize:
    """Measures how many runs a device should compute at once.

    One run after the other is measured first. The time of a run by the number at once may fall, rise, or rise and then
    fall: 4 walks at once took three times as long each as one, and 600 a third. So the largest number follows, and then
    the neighbours of the best one, while compiling and calling one more program fits into the time allowed. What was
    measured for a program is remembered with it, so that a later sweep in this process goes on from there.

    Args:
        prepared: the sweep.
        chunk: the number of runs in a chunk, or None where that is open.
        num_runs: the number of runs that are to be computed.

    Returns:
        "map", or the number with which a run takes the least time. It is "map" for a sweep of less than ten seconds,
        and for one of so few rounds that a single round is more than may be spent.
    """
    return _Search(prepared, chunk, num_runs).best()


def settled(prepared: Prepared, chunk: int | None, num_runs: int) -> Prepared:
    """Returns a sweep whose ``vectorize`` is measured where it was "auto"; see :func:`choose_vectorize`."""
    if prepared.vectorize != "auto":
        return prepared
    return dataclasses.replace(prepared, vectorize=choose_vectorize(prepared, chunk, num_runs))


class _Search:
    """Tries numbers of runs at once while there is time; holds what one search knows."""

    def __init__(self, prepared: Prepared, chunk: int | None, num_runs: int):
        self._prepared, self._chunk = prepared, chunk
        devices = len(prepared.devices)
        self._most = math.ceil(min(prepared.runs.largest_group, chunk or math.inf) / devices)
        # One call measures a round, or a part of one: so many of them are the whole sweep.
        self._parts = math.ceil(num_runs / devices) * num_segments(prepared.train)
        if isinstance(prepared.train, Segments):
            self._parts *= num_calls(prepared.train)

    def best(self) -> Vectorize:
        """Measures "map" and the largest number, then the neighbours of the best one until those are measured."""
        if self._parts * SHARE < 1 or self._most == 1:
            return "map"
        program = self._build("map")
        program.compile()
        self._compile_seconds = program.compile_seconds
        # One dict for all sweeps of equal programs, by the number at once: seconds of a run on a device.
        self._seconds = _measured(dataclasses.replace(program.signature, slots=0, vectorize="auto"))
        if "map" not in self._seconds:
            # One call tells a short sweep, whose time should not go into measuring.
            if self._time(program, limit=0.0) * self._parts < SHORT_SECONDS:
                return "map"
            self._seconds["map"] = self._time(program)
        whole = self._seconds["map"] * self._parts
        if whole < SHORT_SECONDS:
            return "map"
        self._allowed, self._spent = min(max(SHARE * whole, LEAST_SECONDS), MOST_SHARE * whole), 0.0

        best: Vectorize = "map"
        # One at once differs from "map" in its products alone.
        if self._prepared.merges:
            best = self._fastest([1], best)
        # Numbers above what a device gets would all be the same program.
        ladder: list[Vectorize] = [
            best,
            *(lanes for lanes in _LADDER if lanes < self._most),
            min(self._most, _LADDER[-1]),
        ]
        # The largest that there is time for.
        for lanes in reversed(ladder[1:]):
            if self._is_measured(lanes, best):
                best = self._fastest([lanes], best)
                break
        while True:
            place = ladder.index(best)
            faster = self._fastest(ladder[max(place - 1, 0) : place + 2], best)
            if faster == best:
                break
            best = faster
        _LOG.info("seconds of a run by the number at once: %s; going on with %s", self._seconds, best)
        return best

    def _fastest(self, others: Sequence[Vectorize], best: Vectorize) -> Vectorize:
        """Returns the fastest of some numbers that can be measured; the best one so far if it could be noise."""
        fastest = best
        for lanes in others:
            if self._is_measured(lanes, best) and self._seconds[lanes] < self._seconds[fastest]:
                fastest = lanes
        return fastest if self._seconds[fastest] < _FASTER * self._seconds[best] else best

    def _is_measured(self, lanes: Any, best: Vectorize) -> bool:
        """Tells whether a number was measured; measures it where it was not and there is time for it."""
        if lanes in self._seconds:
            return True
        # One call computes `lanes` runs on each device.
        if self._spent + _DEARER * self._compile_seconds + lanes * self._seconds[best] > self._allowed:
            return False
        start = time.perf_counter()
        program = self._build(lanes)
        fits = self._prepared.fits(program)
        try:
            self._seconds[lanes] = self._time(program) if fits else math.inf
        except OutOfMemoryError:
            self._seconds[lanes] = math.inf
        self._spent += time.perf_counter() - start
        return True

    def _build(self, vectorize) -> Program:
        prepared = dataclasses.replace(self._prepared, vectorize=vectorize)
        return prepared.build_fitting() if self._chunk is None else prepared.build(self._chunk)

    def _time(self, program, **limit):
        """Times one batch on each device, and divides by its runs."""
        num = min(program.lanes * program.num_devices, self._prepared.runs.largest_group)
        return part_seconds(self._prepared, program, num, **limit) * program.num_devices / num


# The key holds the training function: few are kept, as with compiled programs.
@functools.lru_cache(maxsize=16)
def _measured(signature) -> dict[Vectorize, float]:
    """Returns the dict of what was measured for programs that differ in their lanes only."""
    del signature
    return {}


def part_seconds(prepared: Prepared, program: Program, num: int, limit: float = _TIMED_SECONDS) -> float:
    """Times one call of a program: the whole of ``num`` runs, or one segment of them.

    Args:
        prepared: the sweep; its first ``num`` runs are computed.
        program: its program, compiled.
        num: number of runs, which share their labels.
        limit: seconds for which what is short is computed again and again; with 0 it is computed once.

    Returns:
        The mean seconds of a call.
    """
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    seconds = []
    # The mean, not the quickest: on a busy machine a short call now and then has its core to itself, and a long one
    # never has, so that by the quickest calls one run at once would always win.
    while not seconds or sum(seconds) < limit:
        # A segment's carry is donated, and makes a new one necessary.
        ready = inputs._replace(state=program.start(inputs)) if isinstance(prepared.train, Segments) else inputs
        # The program is compiled by now, and `run` waits for the devices: the clock measures the computation alone.
        start = time.perf_counter()
        program.run(ready)
        seconds.append(time.perf_counter() - start)
    return sum(seconds) / len(seconds)
