"""Measures in turns, summarises, and describes the machine."""

import contextlib
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = [
    "Report",
    "Summary",
    "Target",
    "caches",
    "compilations",
    "interleave",
    "machine",
    "median_interval",
    "number",
    "ratios",
    "summarize",
    "table",
    "versions",
]


class Summary(NamedTuple):
    """Holds the median, the least and the largest of repeated measurements."""

    median: float
    low: float
    high: float
    repeats: int

    def __str__(self):
        """Returns ``median (low to high)``."""
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


class Target(NamedTuple):
    """Holds one number that a benchmark was asked to reach, and what it reached.

    Attributes:
        statement: what was asked for.
        measured: what was measured, as text.
        holds: whether the target is met; None where there is no verdict.
    """

    statement: str
    measured: str
    holds: bool | None


class Report(NamedTuple):
    """Holds the outcome of one benchmark.

    Attributes:
        title: the heading of ``RESULTS.md``.
        text: its section on the measurements, Markdown.
        data: the measurements for ``results.json``.
        targets: what was asked for and measured.
        figures: Matplotlib figures by the name of their PNG file.
    """

    title: str
    text: str
    data: dict[str, Any]
    targets: Sequence[Target]
    figures: Mapping[str, Any] = MappingProxyType({})


def number(value: float) -> str:
    """Writes a number with three significant digits, without an exponent for the sizes that occur here."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def summarize(values: Sequence[float]) -> Summary:
    """Summarises some measurements."""
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratios(of: Sequence[float], over: Sequence[float]) -> Summary:
    """Summarises ``of / over`` within each turn."""
    return summarize([a / b for a, b in zip(of, over, strict=True)])


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns a 95 % interval of the median, from order statistics.

    It assumes nothing of how the values are distributed.
    """
    ordered, n = sorted(values), len(values)
    reach = 0.98 * n**0.5
    return ordered[max(math.floor(n / 2 - reach), 0)], ordered[min(math.ceil(n / 2 + reach), n - 1)]


def interleave(
    sides: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Times each side, called in turns: A B C, B C A, C A B, ...

    Each turn starts one side later, since what ran before leaves its traces in the caches.

    Args:
        sides: functions of no arguments that return when their work is done.
        repeats: number of turns.
        clock: the clock, in seconds; ``time.process_time`` counts what all threads of the process work.

    Returns:
        For each side ``repeats`` times, one a turn.
    """
    seconds = {name: [] for name in sides}
    names = list(sides)
    for turn in range(repeats):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            start = clock()
            sides[name]()
            seconds[name].append(clock() - start)
    return seconds


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Collects the seconds of every XLA compilation made while it is open."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], text_columns: int = 1) -> str:
    """Writes a Markdown table whose first columns are text and whose others are numbers."""
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [header, rule, *rows])


def machine() -> dict[str, str]:
    """Describes what the numbers depend on, as far as the system tells."""
    device = jax.devices()[0]
    load = "{:.1f}, {:.1f}, {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "caches": ", ".join(f"{name} {size // 2**10} KiB" for name, size in caches().items()) or "unknown",
        "OS": f"{platform.system()} {platform.release()}",
        "JAX device": f"{device.device_kind}" + ("; not run on a GPU" if device.platform == "cpu" else ""),
        "load average at the start": load,
    }


def versions() -> dict[str, str]:
    """Returns the versions of what was used; call it when everything is loaded."""
    return {
        "Python": platform.python_version(),
        "jax": f"{jax.__version__}, jaxlib {jax.lib.__version__}",
        "NumPy": np.__version__,
        "torch": getattr(sys.modules.get("torch"), "__version__", "not used"),
    }


def caches() -> dict[str, int]:
    """Returns the bytes of the first core's data caches by level, e.g. ``{"L1d": 32768}``; empty where unknown."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}" + ("d" if kind == "Data" else "")] = int(size[:-1]) * 2**10
    return found


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
