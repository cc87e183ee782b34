"""The size of a chunk: as many runs as fit the devices' memory."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mixjax.sweeps.programs import OutOfMemoryError, Program

__all__ = ["MAP_SLOTS", "fitting"]

_LOG = logging.getLogger(__name__)

MAP_SLOTS = 16
"""Slots a device where runs go one after the other ("map"): a larger chunk would need no more memory, nor be faster."""

_USABLE = 0.8
"""The part of the free memory that a program may need: the compiler's analysis does not see everything."""

_SHRINK = 0.9
"""The most that the next size may be of the last one, so that the search ends whatever the analysis says."""


def fitting(build: Callable[[int], Program], num_runs: int, free: float) -> Program:
    """Builds the program of the largest chunk that fits the memory.

    The compiler's analysis of one size gives the next one to try. The runs are shared out evenly over the calls that
    they take, so that little padding is left.

    Args:
        build: number of slots -> Program.
        num_runs: the most runs that are to share a chunk, at least 1.
        free: free bytes of a device.

    Returns:
        The program, compiled. Its slots are as few as the devices where nothing smaller is left to try.
    """
    slots, usable = num_runs, _USABLE * free
    while True:
        program = build(slots)
        try:
            needed = program.bytes_per_device()
        except OutOfMemoryError:
            # The compiler does not say how much it wanted: try half the size next.
            needed = 2 * usable
        if needed <= usable or program.slots <= program.num_devices:
            return program
        per_device = int(program.slots // program.num_devices * min(usable / needed, _SHRINK))
        calls = -(-num_runs // (max(per_device, 1) * program.num_devices))
        slots = -(-num_runs // calls)
        _LOG.info("a chunk of %d runs needs %.3g GB a device of %.3g: trying %d", program.slots, needed, usable, slots)
