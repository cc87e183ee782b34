"""Eight simulated CPU devices, so that sharded code is tested everywhere; set before JAX makes its first array.

XLA's plainer code generator compiles the tests' many small programs in half the time; results agree up to rounding.
"""

import collections
import gc
import os
import sys
from pathlib import Path

import jax
import pytest

if jax.__version_info__[:2] == (0, 10):  # a version that does not know the flag would stop at it
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
jax.config.update("jax_num_cpu_devices", 8)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Looks for no garbage among thousands of tests, where there is none: that would take a third of the collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        # Tracing a program makes many objects, and few of them are garbage.
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


def pytest_configure(config):
    """Keeps xdist to the order of ``pytest_collection_modifyitems``; its own counts tests, and some take a minute."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    """Gives xdist's workers the longest files first, so that none is left with one at the end while others idle."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        tests = collections.Counter(item.path for item in items)
        # Sorting is stable: a file's tests stay together, in their order.
        items.sort(key=lambda item: (item.path not in slow, -tests[item.path], str(item.path)))


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules that compile longer than they compute: machine code is optimised less, results agree up to rounding.

    Used as `pytestmark = pytest.mark.usefixtures("quick_compilation")`.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _no_tuning(monkeypatch):
    """Lets no sweep measure how many runs to compute at once: on a busy machine a short one may seem to be long."""
    # Nothing is imported for tests that use no sweep.
    if "mixjax.sweeps.tuning" in sys.modules:
        monkeypatch.setattr("mixjax.sweeps.tuning.SHORT_SECONDS", float("inf"))


# Linux gives a process 65,530 memory maps unless told otherwise, and every compiled program takes a few.
_MANY_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Forgets compiled programs between modules before there are too many: beyond the limit, XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
        gc.collect()
