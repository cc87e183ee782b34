"""Measures run-steps a second: by chunk, runs and devices, beside rivals and the machine's peaks.

Numbers that depend on the number of simulated CPU devices are measured in processes of their own, since JAX fixes that
number when it starts.
"""

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import eager_runs, pytorch, roofline, short_runs, throughput_report, timing
from experiments.benchmarks.throughput_report import CHECKED, MODES
from experiments.benchmarks.workers import cores, worker

__all__ = ["check_equal", "measure", "run"]

TOLERANCE = 2e-3
CHUNKS = {"linear, all examples": (16, 64, 256, 1024, 4096), "linear, batches": (16, 64, 256, 1024, 4096)}
# numbers of runs; (1, 16, 256, 4096) for the other problems, whose steps are short
RUNS = {"MLP 784-100-10": (1, 16, 256)}


def per_second(problem: short_runs.Problem, runs: int, seconds: Sequence[float]) -> timing.Summary:
    """Summarises run-steps a second."""
    return timing.summarize([runs * problem.num_steps / s for s in seconds])


def by_chunk(problem: short_runs.Problem, quick: bool) -> dict[str, dict[int, dict[str, Any]]]:
    """Measures run-steps a second and compile seconds, for each mode and chunk.

    The sides of a turn must be few, since ``sweep`` keeps the last eight programs and compiles older ones again.
    """
    chunks = (8,) if quick else CHUNKS.get(problem.name, (4, 16, 64, 256))
    least = 8 if quick else 256
    sizes = {("map", chunks[0]): least} | {("vmap", chunk): max(chunk, least) for chunk in chunks}
    found = {mode: {} for mode in MODES}
    for (mode, chunk), runs in sizes.items():
        found[mode][chunk] = {"compile_seconds": short_runs.sweep(problem, runs, chunk, mode).attrs["compile_seconds"]}
    sides = {key: functools.partial(short_runs.sweep, problem, runs, key[1], key[0]) for key, runs in sizes.items()}
    for (mode, chunk), seconds in timing.interleave(sides, 2 if quick else 3).items():
        found[mode][chunk] |= {"rate": per_second(problem, sizes[mode, chunk], seconds)._asdict()}
    return found


def fastest(chunks: dict[int, dict[str, Any]]) -> int:
    """Returns the chunk of the largest median rate."""
    return max(chunks, key=lambda chunk: chunks[chunk]["rate"]["median"])


def check_equal(problem: short_runs.Problem) -> dict[str, float]:
    """Returns how far the loop's and PyTorch's results are from the sweep's, on a few runs.

    Raises:
        AssertionError: a difference above ``TOLERANCE``: the sides do not train the same.
    """
    sweep = short_runs.sweep(problem, CHECKED, CHECKED, "vmap").isel(gamma1=0)
    loop = short_runs.loop(problem, CHECKED)
    torch = [eager_runs.train(problem, eager_runs.tensors(problem, s), short_runs.GAMMA1[-1], by_hand=problem.linear)
             for s in range(CHECKED)]  # fmt: skip
    found = {}
    for side, results in {"loop": loop, "PyTorch": torch}.items():
        found[side] = max(
            float(np.max(np.abs(result[name] - sweep[name].values[s]) / np.abs(sweep[name].values[s]).max()))
            for s, result in enumerate(results)
            for name in result
        )
        if not found[side] <= TOLERANCE:
            raise AssertionError(f"{side} does not train {problem.name} as the sweep does: off by {found[side]}.")
    return found


def torch_sides(problem: short_runs.Problem, runs: int) -> dict[str, Callable]:
    """Returns PyTorch's sides, with one thread and with one for each core."""
    inputs = eager_runs.tensors(problem, 0)

    def side(threads, by_hand):
        pytorch.load().set_num_threads(threads)
        for _ in range(runs):
            eager_runs.train(problem, inputs, short_runs.GAMMA1[-1], by_hand=by_hand)

    kinds = {"autograd": False} | ({"gradient by hand": True} if problem.linear else {})
    return {
        f"PyTorch, {kind}, threads: {threads}": functools.partial(side, threads, by_hand)
        for kind, by_hand in kinds.items()
        for threads in sorted({1, len(cores())})
    }


def by_runs(problem: short_runs.Problem, chunks: dict[str, int], quick: bool) -> dict[str, Any]:
    """Measures milliseconds a run: the sweep's by number of runs, a loop's of jitted runs, PyTorch's; all in turns.

    Also each rival's time over that of the most runs swept by the faster mode, within a turn.
    """
    sizes, alone, repeats = ((8,), 2, 2) if quick else (RUNS.get(problem.name, (1, 16, 256, 4096)), 8, 3)
    sides, runs = {}, {}
    for mode in MODES:
        for n in sizes:
            sides[mode, n] = functools.partial(short_runs.sweep, problem, n, min(chunks[mode], n), mode)
            runs[mode, n] = n
    rivals = {"loop of jitted runs": functools.partial(short_runs.loop, problem, alone), **torch_sides(problem, alone)}
    sides |= rivals
    runs |= dict.fromkeys(rivals, alone)
    for key, side in sides.items():
        # the most runs need no warming up: the chunk is compiled by then, and they take long
        if quick or runs[key] < sizes[-1]:
            side()
    seconds = timing.interleave(sides, repeats)
    each = {key: [1e3 * s / runs[key] for s in values] for key, values in seconds.items()}
    times = {key: timing.summarize(values) for key, values in each.items()}
    best = min(((mode, sizes[-1]) for mode in MODES), key=lambda key: times[key].median)
    return {
        "ms_per_run": {mode: {n: times[mode, n]._asdict() for n in sizes} for mode in MODES},
        "mode": best[0],
        "runs": best[1],
        "rivals": {
            name: {"ms_per_run": times[name]._asdict(), "times": timing.ratios(each[name], each[best])._asdict()}
            for name in rivals
        },
    }


def shares(problem: short_runs.Problem, chunks: dict[str, int], peak: dict[int, dict], quick: bool) -> dict[str, Any]:
    """Measures for each mode the products' rate within the sweep, alone, and the machine's, in turns.

    Operations a byte are counted beside them.
    """
    found, (size, _) = {}, max(peak.items(), key=lambda item: item[1]["median"])
    for mode in MODES:
        chunk = chunks[mode]
        runs = 2 * chunk if quick else max(chunk, 256)
        sides = {
            "sweep": functools.partial(short_runs.sweep, problem, runs, chunk, mode),
            "alone": functools.partial(roofline.sweep_alone, problem, runs, chunk, mode),
        }
        for side in sides.values():
            side()
        sides["machine"], machine_flops = roofline.product_side(size, quick)
        seconds, flops = timing.interleave(sides, 2 if quick else 5), runs * problem.num_steps * problem.product_flops
        sweep = [flops / s for s in seconds["sweep"]]
        alone = [flops / s for s in seconds["alone"]]
        need = roofline.demand(problem, max(chunk // len(jax.devices()), 1) if mode == "vmap" else 1)
        found[mode] = {
            "chunk": chunk,
            "rate": timing.summarize(sweep)._asdict(),
            "alone": timing.summarize(alone)._asdict(),
            "of_alone": timing.ratios(sweep, alone)._asdict(),
            "of_peak": timing.ratios(sweep, [machine_flops / s for s in seconds["machine"]])._asdict(),
            "intensity": need.flops / need.bytes,
            "working_set": need.working_set,
        }
    return found


def saving(problem: short_runs.Problem, chunk: int, mode: str, rate: float, quick: bool) -> dict[str, Any]:
    """Times a sweep with a checkpoint over one without, in turns."""
    seconds, repeats = (0.2, 2) if quick else (4.0, 15)
    runs = max(round(seconds * rate / problem.num_steps / chunk), 1) * chunk

    def saved():
        with tempfile.TemporaryDirectory() as folder:
            short_runs.sweep(problem, runs, chunk, mode, checkpoint=folder)

    saved()
    taken = timing.interleave({"plain": lambda: short_runs.sweep(problem, runs, chunk, mode), "saved": saved}, repeats)
    return {
        "runs": runs,
        "seconds": timing.summarize(taken["plain"])._asdict(),
        "ratio": timing.ratios(taken["saved"], taken["plain"])._asdict(),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Measures all that one process measures."""
    found = {"device": jax.devices()[0].device_kind, "devices": len(jax.devices()), "peaks": roofline.peaks(quick)}
    for problem in short_runs.problems(quick):
        own = {"difference": check_equal(problem), "chunks": by_chunk(problem, quick)}
        chunks = {mode: fastest(own["chunks"][mode]) for mode in MODES}
        own |= {"runs": by_runs(problem, chunks, quick)}
        own |= {"shares": shares(problem, chunks, found["peaks"]["products"], quick)}
        found[problem.name] = own
    first = short_runs.problems(quick)[0]
    mode = found[first.name]["runs"]["mode"]
    chunks = found[first.name]["chunks"][mode]
    found["saving"] = saving(first, fastest(chunks), mode, chunks[fastest(chunks)]["rate"]["median"], quick)
    return found


def timed(problem: short_runs.Problem, runs: int, chunk: int, mode: str) -> float:
    """Returns the seconds of a sweep."""
    start = time.perf_counter()
    short_runs.sweep(problem, runs, chunk, mode)
    return time.perf_counter() - start


def by_devices(found: dict[str, Any], quick: bool) -> dict[str, dict[int, dict[str, Any]]]:
    """Measures run-steps a second for 1, 2, 4 and 8 devices, each number in a process of its own, in turns.

    Each is also divided by the rate of one device within the turn.
    """
    counts, repeats = ((1, 2), 1) if quick else ((1, 2, 4, 8), 3)
    rates = {}
    with contextlib.ExitStack() as stack:
        calls = {n: stack.enter_context(worker(n, quick)) for n in counts}
        for problem in short_runs.problems(quick)[: 1 if quick else None]:
            mode = found[problem.name]["runs"]["mode"]
            chunk = max(fastest(found[problem.name]["chunks"][mode]), counts[-1])
            runs = chunk if quick else max(2 * chunk, 128)
            sides = {n: functools.partial(call, timed, problem, runs, chunk, mode) for n, call in calls.items()}
            for side in sides.values():
                side()
            seconds = timing.interleave(sides, repeats)
            rates[problem.name] = {
                n: {
                    "rate": per_second(problem, runs, seconds[n])._asdict(),
                    "times": timing.ratios(seconds[1], seconds[n])._asdict(),
                    "chunk": chunk,
                    "mode": mode,
                }
                for n in counts
            }
    return rates


def run(quick: bool = False) -> timing.Report:
    """Measures everything, and writes the report."""
    # fails before anything is measured where PyTorch is missing
    pytorch.load()
    on_cpu = jax.default_backend() == "cpu"
    one_core = None
    if on_cpu and not quick and hasattr(os, "sched_setaffinity"):
        with worker(1, quick, cores()[:1]) as call:
            one_core = call(roofline.peaks, quick)
    with worker(len(cores()), quick) as call:
        found = call(measure, quick)
    found["one core"] = one_core
    found["by devices"] = by_devices(found, quick) if on_cpu else None
    return throughput_report.report(found, quick, on_cpu)
