"""Measures runs a minute of a swarm of small proxies: ``mixjax.sweep`` beside loops of jitted runs and PyTorch.

Every side has all cores, and trains whole runs one after the other or at once:

- a sweep, with ``vectorize="map"`` and with "auto", the default, in a process of one simulated device a core;
- a loop of jitted runs in one process, where XLA may use all cores for one run;
- the same loop in one process a core, each bound to its core;
- PyTorch eager and ``torch.compile``, in one process a core with one thread.

The sides are timed in turns once everything is compiled. The seconds that a side takes from nothing to its first runs
are measured apart.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import proxies, pytorch, timing, torch_proxies, workers
from experiments.benchmarks.proxies import Proxy

__all__ = ["check_equal", "crew", "run"]

# the losses of a language model after some hundred steps, computed in another order
TOLERANCE = 0.02
# seconds that each side of a turn should take
SECONDS = 6.0
TARGETS = {"byte model": 2.0, "decoder": 1.5}
RIVALS = ("jitted", "jitted, a process a core", "PyTorch eager, a process a core", "torch.compile, a process a core")


@contextlib.contextmanager
def crew(cores: Sequence[int], devices: int, quick: bool) -> Iterator[Callable[..., list[Any]]]:
    """Opens one process a core, and gives ``call(function, *arguments)``, which calls it in all of them at once.

    Args:
        cores: the core that each process is bound to; -1 binds a process to none.
        devices: simulated devices of a process.
        quick: whether programs are optimised less, to be compiled sooner.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pools = [
            stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(
                    1, context, _start, (devices, quick, () if core < 0 else (core,))
                )
            )
            for core in cores
        ]

        def call(function, *arguments):
            done = [pool.submit(function, *arguments) for pool in pools]
            return [future.result() for future in done]

        yield call


def _start(devices, quick, cores):
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_disable_most_optimizations", quick)


def swept(proxy: Proxy, runs: int, vectorize: str | int | None) -> dict[str, Any]:
    """Sweeps so many runs, and returns what the sweep says about itself."""
    return dict(proxies.sweep(proxy, runs, vectorize=vectorize).attrs)


def looped(proxy: Proxy, runs: int) -> None:
    """Trains so many runs in a loop of jitted ones."""
    proxies.loop(proxy, proxies.mixtures(runs))


@functools.cache
def _inputs(proxy, runs):
    return torch_proxies.inputs(proxy, proxies.mixtures(runs))


def in_torch(proxy: Proxy, runs: int, compiled: bool) -> None:
    """Trains so many runs in PyTorch, whose first parameters and windows are those of a few runs, used again."""
    pytorch.load().set_num_threads(1)
    starts = _inputs(proxy, 2)
    for i in range(runs):
        torch_proxies.train(proxy, starts[i % len(starts)], compiled=compiled)


def check_equal(proxy: Proxy) -> dict[str, float]:
    """Returns how far the rivals' losses are from the sweep's on two runs, relative to the largest.

    Raises:
        AssertionError: a difference above ``TOLERANCE``: the sides do not train the same.
    """
    chosen = proxies.mixtures(2)
    sweep = proxies.sweep(proxy, 2).losses.values[:, 0]
    sides = {
        'vectorize="auto"': proxies.sweep(proxy, 2, vectorize="auto").losses.values[:, 0],
        "loop": np.stack([result["losses"] for result in proxies.loop(proxy, chosen)]),
        "PyTorch": np.stack([torch_proxies.train(proxy, s, compiled=False) for s in _inputs(proxy, 2)]),
    }
    found = {name: float(np.abs(losses - sweep).max() / sweep.max()) for name, losses in sides.items()}
    for name, difference in found.items():
        if not difference <= TOLERANCE:
            raise AssertionError(f"{name} does not train the {proxy.name} as the sweep does: off by {difference}.")
    return found


def measure(proxy: Proxy, quick: bool) -> dict[str, Any]:
    """Times all sides of one proxy, in turns."""
    cores = workers.cores()
    with contextlib.ExitStack() as stack:
        one = {name: stack.enter_context(crew([-1], n, quick)) for name, n in (("sweep", len(cores)), ("loop", 1))}
        each = {name: stack.enter_context(crew(cores, 1, quick)) for name in RIVALS[1:]}
        (difference,) = one["sweep"](check_equal, proxy)
        # The first call compiles. Its choice is given as a number from then on, so that turns do not measure again.
        long = 8 if quick else 2000
        (tuned,) = one["sweep"](swept, proxy, long if proxy.kind == "bytes" else long // 4, "auto")
        chosen = tuned["vectorize"]
        kinds = {
            "sweep": (one["sweep"], swept, ("map",), 1),
            'sweep, vectorize="auto"': (one["sweep"], swept, (chosen,), 1),
            RIVALS[0]: (one["loop"], looped, (), 1),
            RIVALS[1]: (each[RIVALS[1]], looped, (), len(cores)),
            RIVALS[2]: (each[RIVALS[2]], in_torch, (False,), len(cores)),
            RIVALS[3]: (each[RIVALS[3]], in_torch, (True,), len(cores)),
        }
        sides, runs, first = {}, {}, {}
        for name, (call, function, options, processes) in kinds.items():
            start = time.perf_counter()
            call(function, proxy, 2, *options)
            first[name] = time.perf_counter() - start
            start = time.perf_counter()
            call(function, proxy, 2, *options)
            seconds = (time.perf_counter() - start) / 2
            # A sweep computes a multiple of the cores at once.
            number = 2 if quick else max(round(SECONDS / seconds / 32), 1) * (32 if processes == 1 else 16)
            runs[name] = number * processes
            sides[name] = functools.partial(call, function, proxy, number, *options)
        taken = timing.interleave(sides, 2 if quick else 5)
    rates = {name: [60 * runs[name] / s for s in seconds] for name, seconds in taken.items()}
    ours = max(list(kinds)[:2], key=lambda name: timing.summarize(rates[name]).median)
    best = max(RIVALS, key=lambda name: timing.summarize(rates[name]).median)
    return {
        "difference": difference,
        "vectorize": chosen,
        "tuning": tuned,
        "runs_a_minute": {name: timing.summarize(values)._asdict() for name, values in rates.items()},
        "first_seconds": first,
        "ours": ours,
        "best rival": best,
        "times": {name: timing.ratios(rates[ours], rates[name])._asdict() for name in rates},
    }


def _text(proxy: Proxy, found: dict[str, Any]) -> str:
    rows = [
        (
            name,
            timing.Summary(**rate),
            timing.Summary(**found["times"][name]),
            timing.number(found["first_seconds"][name]),
        )
        for name, rate in found["runs_a_minute"].items()
    ]
    tuned = found["tuning"]
    return "\n\n".join(
        [
            f"**{proxy.name[0].upper()}{proxy.name[1:]}**: width {proxy.width}, {proxy.num_steps} steps of AdamW on "
            f"{proxy.batch} windows of {proxy.length} bytes of three domains, which each run draws by a mixture of its "
            f'own. `vectorize="auto"` chose {found["vectorize"]} at once; choosing and compiling took '
            f"{tuned['compile_seconds']:.1f} s beside {tuned['run_seconds']:.1f} s for {tuned['num_runs']} runs. "
            f"The rivals' losses differ from the sweep's by at most {max(found['difference'].values()):.1g} of the "
            "largest.",
            timing.table(["side", "runs a minute", f"{found['ours']}, times as fast", "s to its first 2 runs"], rows),
        ]
    )


def run(quick: bool = False) -> timing.Report:
    """Measures both proxies."""
    pytorch.load()
    parts, data, targets = [], {}, []
    for proxy in proxies.proxies(quick):
        found = measure(proxy, quick)
        data[proxy.name] = found
        parts.append(_text(proxy, found))
        times = timing.Summary(**found["times"][found["best rival"]])
        targets.append(
            timing.Target(
                f"{proxy.name}: at least {TARGETS[proxy.name]} times as many runs a minute as the best rival",
                f"{times} times {found['best rival']} ({found['ours']})",
                times.median >= TARGETS[proxy.name],
            )
        )
    text = [
        "A run trains and is then tested on held-out text. All sides train the same models on the same windows. A "
        "jitted run is one program, so that there is no dispatch between steps for a sweep to save. What a sweep gains "
        "on a CPU comes from all cores at work without a process for each, and with numbers or `auto` from matrix "
        "products that sum over one dimension (`mixjax.sweeps.contractions`): for the gradient of a layer on windows, "
        "which sums over windows and places, XLA copies an operand, transposed, which takes longer than the product. "
        "At the sizes of these proxies that makes no difference.",
        *parts,
    ]
    return timing.Report("A swarm of small proxies", "\n\n".join(text), data, targets)
