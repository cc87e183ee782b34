"""What the machine leaves to this process: memory, and cores."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

__all__ = ["free_bytes", "use_all_cores"]

_ROOT = Path("/")


def use_all_cores() -> None:
    """Makes each core that may be used a device, so that runs are split over them; in vain where JAX already runs."""
    if jax.config.jax_num_cpu_devices < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cores)


def free_bytes(devices: Sequence[jax.Device]) -> float:
    """A device's memory that is not in use, the least of all.

    Simulated CPU devices share the host's, or what the process's control groups leave of it: a job of SLURM or a
    container is killed for more.

    Args:
        devices: of this process.

    Returns:
        Bytes.
    """
    stats = [device.memory_stats() for device in devices]
    if all(one and "bytes_limit" in one for one in stats):
        return float(min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats))
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([host, *_left_by_groups()]) / len(devices)


def _left_by_groups() -> Iterator[float]:
    """Of each control group with a limit, from the process's own up: limit - usage + what the kernel would drop."""
    second = ("memory.max", "memory.current", "inactive_file")
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        lines = (_ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = _ROOT / "sys/fs/cgroup" / ("memory" if kinds else "")
        own = top / path.lstrip("/")  # in a container, possibly the host's name for it: then only the top is there
        for group in (own, *(parent for parent in own.parents if parent.is_relative_to(top))):
            limit, usage, cached = first if kinds else second
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                left = int((group / limit).read_text()) - int((group / usage).read_text())
                stat = dict(each.split() for each in (group / "memory.stat").read_text().splitlines())
                yield max(left + int(stat.get(cached, 0)), 0)
