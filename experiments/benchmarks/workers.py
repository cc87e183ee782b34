"""Opens processes of a given number of simulated devices, which JAX fixes when it starts."""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

__all__ = ["cores", "worker"]


@contextlib.contextmanager
def worker(devices: int, quick: bool, cores: Sequence[int] = ()) -> Iterator[Callable[..., Any]]:
    """Opens a process of so many simulated devices and gives ``call(function, *arguments)``, which runs in it.

    On an accelerator, whose memory one process takes, the call is made here.

    Args:
        devices: how many simulated devices.
        quick: whether programs are optimised less, to be compiled sooner.
        cores: the only cores that the process may use; all where none are named.
    """
    if jax.default_backend() != "cpu":
        yield lambda function, *arguments: function(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, _start, (devices, quick, tuple(cores))) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _start(devices, quick, cores):
    if cores:
        os.sched_setaffinity(0, cores)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", quick)


def cores() -> list[int]:
    """Returns the cores this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
