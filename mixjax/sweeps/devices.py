"""Finds out which memory and which cores of the machine this process may use, and leaves a user's mesh."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

__all__ = [
    "Device",
    "compiler_options",
    "control_groups",
    "free_bytes",
    "memory_kills",
    "outside_meshes",
    "use_all_cores",
]

if TYPE_CHECKING:
    # jaxlib comes without type stubs: to a type checker jax.Device is no type.
    Device: TypeAlias = Any
else:
    Device = jax.Device


class _Files(NamedTuple):
    """Holds the names of a control group's files, and the name of an entry in its file memory.stat.

    Args:
        limit: the file with the group's limit.
        usage: the file with the bytes that the group uses.
        cached: the entry that counts cached bytes, which the kernel drops when memory is short.
        kills: the file whose entry "oom_kill" counts the group's processes that were killed for memory.
    """

    limit: str
    usage: str
    cached: str
    kills: str


_UNKNOWN_BYTES = 4e9
"""The free memory of a host that does not tell: what nearly every machine has. A chunk that still fails is halved."""

_LEAVE_OUT = "xla_disable_hlo_passes"
"""The name of XLA's option that leaves passes out."""

# Linux has two versions of control groups, and machines with either are in use.
_FIRST_VERSION = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control")
_SECOND_VERSION = _Files("memory.max", "memory.current", "inactive_file", "memory.events")


def use_all_cores() -> None:
    """Makes each core that this process may use a device of JAX, so that runs are split over the cores.

    Nothing changes where the user has set the number of devices, or where JAX has already started.
    """
    # JAX adds its options when it is loaded, where pyright does not see them.
    if jax.config.jax_num_cpu_devices >= 0:  # pyright: ignore[reportAttributeAccessIssue]
        return
    # JAX refuses with a RuntimeError once it has started.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", _cores())


def compiler_options(devices: Sequence[Device]) -> dict[str, str]:
    """Returns the options with which XLA compiles a program of some devices, each of which computes runs of its own.

    On a CPU, XLA cuts a loop over an array into one task for each core. Handing the tasks over takes microseconds,
    about as long as a small step. Where there is a device for each core, no core is free to take a task.

    Args:
        devices: the program's devices.

    Returns:
        Options for ``jax.jit``. They keep XLA from cutting loops where the devices are a CPU's and at least as many of
        them are in this process as it has cores; else there are none. Nor are there any where ``XLA_FLAGS`` says which
        passes to leave out, or XLA does not know the option. Results do not depend on them.
    """
    own = [device for device in devices if device.process_index == jax.process_index()]
    if any(device.platform != "cpu" for device in devices) or len(own) < _cores():
        return {}
    # An option of a program takes the place of the user's.
    if _LEAVE_OUT in os.environ.get("XLA_FLAGS", "") or not _is_known(_LEAVE_OUT):
        return {}
    # XLA passes over the names of passes that it does not have.
    return {_LEAVE_OUT: "cpu-parallel-task-assigner"}


@functools.cache
def _is_known(option: str) -> bool:
    """Finds out whether XLA has an option: options come and go with its versions, and it stops at an unknown one."""
    try:
        jax.jit(lambda: 0, compiler_options={option: ""}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def outside_meshes() -> Iterator[None]:
    """Leaves the mesh of ``jax.set_mesh`` for a ``with`` block.

    A sweep splits its runs over a mesh of its own, and JAX traces no program of one mesh while another is set. A run
    has no part in the user's mesh: it is computed on one device.

    Yields:
        Nothing.
    """
    if jax.sharding.get_abstract_mesh().empty:
        yield
        return
    # A mesh without axes and devices stands for none.
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        yield


def free_bytes(devices: Sequence[Device], *, root: Path = Path("/")) -> float:
    """Returns the memory that is free on each device, or on the device with the least.

    Simulated CPU devices share the host's memory in equal parts. Where a control group limits the process, as SLURM and
    containers do, only what the limit leaves is free: a process that takes more is killed.

    Args:
        devices: devices of this process.
        root: the folder that holds ``proc`` and ``sys``.

    Returns:
        Bytes.
    """
    stats = [_stats(device) for device in devices]
    if all("bytes_limit" in one for one in stats):
        return float(min(one["bytes_limit"] - one.get("bytes_in_use", 0) for one in stats))
    return min([_host_bytes(root), *_left_by_groups(root)]) / len(devices)


def _stats(device: Device) -> dict[str, int]:
    """Returns what a device says about its memory; nothing where its backend does not say it."""
    try:
        return device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:
        return {}


def _host_bytes(root: Path) -> float:
    """Returns the free memory of the host; half of all its memory where only that is known."""
    # What Linux has free, with the files in memory that it would drop; pages that hold nothing are few on a machine
    # that has been up for a day.
    with contextlib.suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    # Windows has no sysconf. macOS has no entry for free pages, and raises a ValueError. An entry that the system knows
    # but cannot tell is -1.
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            found = os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
            if found > 0:
                return share * found
    return _UNKNOWN_BYTES


def _left_by_groups(root: Path) -> Iterator[float]:
    """Yields what each control group with a limit leaves, from the process's own group up."""
    for group, files in control_groups(root):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            yield _left_by(group, files)


def memory_kills(root: Path = Path("/")) -> dict[str, int]:
    """Counts the processes that the kernel has killed for memory.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Returns:
        Name of a counter -> its count: that of the process's control group first, then that of the machine. Those that
        cannot be read are left out. A counter that begins anew has another name.
    """
    found = {}
    for group, files in control_groups(root):
        with contextlib.suppress(OSError, ValueError, KeyError):
            place = group / files.kills
            # A group that is made again has its path, but not its number.
            found[f"{place} {place.stat().st_ino}"] = _entries(place)["oom_kill"]
            break
    with contextlib.suppress(OSError, ValueError, KeyError):
        boot = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
        found[f"machine {boot}"] = _entries(root / "proc/vmstat")["oom_kill"]
    return found


def control_groups(root: Path = Path("/")) -> Iterator[tuple[Path, _Files]]:
    """Yields the control groups that count the memory of this process, from its own group up.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Yields:
        The group's folder, and the names of its files.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        # A line is "number:kinds:path"; the second version of control groups leaves the kinds empty.
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        # In a container the path may be the host's name for the group: then no folder but the top one exists here.
        own = top / path.lstrip("/")
        for group in (own, *(parent for parent in own.parents if parent.is_relative_to(top))):
            yield group, _FIRST_VERSION if kinds else _SECOND_VERSION


def _entries(file: Path) -> dict[str, int]:
    """Reads the lines "name number" of a file."""
    return {name: int(number) for name, number in (line.split() for line in file.read_text().splitlines())}


def _left_by(group: Path, files: _Files) -> float:
    """Returns limit - usage + cached bytes, at least 0."""
    left = int((group / files.limit).read_text()) - int((group / files.usage).read_text())
    return max(left + _entries(group / "memory.stat").get(files.cached, 0), 0)
