"""Measures mixjax and its peers side by side: the processor time of each call, and the memory at its peak.

The sides are timed in one process on one core, in turns, so that neither the number of threads nor what else the
machine does takes part in a comparison. Their memory is measured in another process, which gives it back when freed.
"""

import ctypes
import gc
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import memory, pytorch, timing, workers

__all__ = [
    "Found",
    "check",
    "give_back",
    "installed",
    "measured_apart",
    "milliseconds",
    "missing",
    "peak",
    "peaks",
    "table",
    "versions",
]


class Found(NamedTuple):
    """Holds what was measured of one side.

    Attributes:
        ms: the processor time of one call, a turn each.
        megabytes: the memory at the peak of a call beyond what the process held before it.
    """

    ms: list[float]
    megabytes: float


def installed(module: str) -> bool:
    """Returns whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def missing(extra: str = "bench") -> str:
    """Returns what a table says of a side whose package is not there."""
    return f"not installed: extra `{extra}`"


def versions(*packages: str) -> str:
    """Returns the versions of the packages that are installed, as text."""
    names = [name for name in packages if installed(name.replace("-", "_"))]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def check(what: str, found: Mapping[str, Any], of: str, tolerance: float) -> dict[str, float]:
    """Returns how far each side's numbers are from those of one side, relative to the largest of these.

    Args:
        what: names the numbers, for the message.
        found: a list of arrays for each side.
        of: the side to compare with.
        tolerance: the largest difference that rounding explains.

    Returns:
        The largest difference of each other side.

    Raises:
        AssertionError: a difference above ``tolerance``: the sides do not compute the same.
    """
    differences = {}
    for name, arrays in found.items():
        if name == of:
            continue
        pairs = list(zip(map(np.asarray, arrays), found[of], strict=True))
        if any(left.shape != right.shape for left, right in pairs):
            raise AssertionError(f"{name} returns {what} of other shapes than {of} does.")
        scale = max(float(np.abs(right).max()) for _, right in pairs)
        # np.max, unlike max, returns NaN wherever it stands.
        differences[name] = float(np.max([np.abs(left - right).max() for left, right in pairs])) / scale
        if not differences[name] <= tolerance:
            raise AssertionError(f"{name} does not compute the {what} of {of}: off by {differences[name]}.")
    return differences


def give_back() -> None:
    """Makes the C library give large blocks back to the system when they are freed.

    Otherwise it keeps them for later calls, which then seem to take no memory. Call it before anything is computed in
    the process, and time nothing in it: asking the system for memory costs time.
    """
    # M_MMAP_THRESHOLD of malloc.h; setting it also keeps it from growing
    ctypes.CDLL(None).mallopt(-3, 2**16)


def peak(call: Callable[[], Any]) -> float:
    """Returns the megabytes that a call takes at its peak, beyond those that the process held before it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = memory.resident("VmRSS")
    # Sets the peak to what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return (memory.resident("VmHWM") - before) / 1e6


def peaks(sides: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the megabytes at the peak of each side, once all have compiled; after :func:`give_back`."""
    warm_up(sides)
    return {name: peak(side) for name, side in sides.items()}


def milliseconds(sides: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns the processor time of each side's calls, in turns, once all have compiled."""
    warm_up(sides)
    seconds = timing.interleave(sides, repeats, time.process_time)
    return {name: [1e3 * second for second in values] for name, values in seconds.items()}


def measured_apart(title: str, quick: bool, megabytes: Callable, measure: Callable) -> timing.Report:
    """Measures memory and then time, each in a process of its own on one core.

    Args:
        title: the report's.
        quick: whether the sizes are tiny.
        megabytes: returns the megabytes of every side; called without arguments.
        measure: takes what ``megabytes`` returned, and returns the report's text, data and targets.
    """
    if installed("torch"):
        # for the report's versions, which are those of this process
        pytorch.load()
    core = workers.cores()[-1:]
    with workers.worker(1, quick, core) as call:
        found = call(megabytes)
    with workers.worker(1, quick, core) as call:
        return timing.Report(title, *call(measure, found))


def warm_up(sides: Mapping[str, Callable[[], Any]]) -> None:
    """Calls every side twice."""
    for side in sides.values():
        side()
        side()


def table(found: Mapping[str, Found], names: Sequence[str], of: str) -> str:
    """Writes a table of all sides, also of those that are not installed, beside the side ``of``."""
    rows = []
    for name in names:
        if name not in found:
            rows.append((name, missing(), "", "", ""))
            continue
        ms, megabytes = found[name]
        times = timing.ratios(ms, found[of].ms)
        rows.append((name, timing.summarize(ms), times, f"{megabytes:.1f}", f"{megabytes / found[of].megabytes:.2f}"))
    header = ["", "ms of processor time", f"times {of}'s", "MB at the peak", "times its memory"]
    return timing.table(header, rows)
