"""Compares what ``vectorize="auto"`` chooses with every fixed choice, on eight problems from the papers.

The times are processor time, summed over threads, of one call of each program: a batch on each device, or a run on each
with "map". The choice itself is made by the clock on the wall, as in any sweep, for a sweep so large that it is allowed
to measure what it wants.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.benchmarks import timing, workers
from mixjax.runner import configs
from mixjax.runner.labels import parts_of
from mixjax.sweeps import Sweep
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import Program
from mixjax.sweeps.spec import Vectorize
from mixjax.sweeps.tuning import SHARE, choose_vectorize, part_seconds

__all__ = ["PROBLEMS", "Problem", "measure", "run"]

CONFIGS = Path(__file__).parents[2] / "configs"
CHOICES: tuple[Vectorize, ...] = ("map", 4, 16, 64, 256, "vmap")
TOLERANCE = 1.1
# a longer call of a batch is not measured: it is far from the fastest
MOST_SECONDS = 8.0


class Problem(NamedTuple):
    """Holds a config's first run, shortened.

    Attributes:
        name: for the table.
        config: the config's path below ``configs``.
        settings: settings that make a run shorter.
    """

    name: str
    config: str
    settings: Mapping[str, Any] = MappingProxyType({})


PROBLEMS = (
    Problem("linear regression (000, figure 1)", "loss_and_sampling_weights/linear", {"num_steps": 200}),
    Problem("rates of SGD (000)", "loss_and_sampling_weights/sgd_rates", {"num_steps": 500, "num_records": 10}),
    Problem("near copies (000)", "loss_and_sampling_weights/redundancy", {"num_steps": 40}),
    Problem("walk on a line (003)", "resampling_reweighting/equilibrium", {"num_steps": 2000}),
    Problem("piecewise loss (003)", "resampling_reweighting/piecewise"),
    Problem("regression (003)", "resampling_reweighting/regression", {"num_steps": 160}),
    Problem("wide network (004)", "hardness_sampling/wide_relu", {"num_steps": 100}),
    Problem("full gradients (001)", "fewer_weight_updates/full_gradients", {"budgets": [64, 128, 256]}),
)


def spec(problem: Problem) -> Sweep:
    """Returns the sweep of a problem's first run, in chunks of any size."""
    config = configs.load(CONFIGS / f"{problem.config}.toml")
    part = parts_of(config, config.runs[0])[0]
    experiment = config.function(configs.replace(part.values, dict(problem.settings)))
    return Sweep(
        experiment.train,
        seeds=config.sweep.seeds,
        first_seed=config.sweep.first_seed,
        axes=part.axes,
        points=experiment.points or part.points,
        data=experiment.data,
        dims=experiment.dims,
        coords=experiment.coords,
        vectorize="auto",
    )


def program_of(prepared: Prepared, vectorize: Vectorize) -> Program:
    """Builds and compiles the program of a fixed choice."""
    program = dataclasses.replace(prepared, vectorize=vectorize).build_fitting()
    program.compile()
    return program


def processor_seconds(prepared: Prepared, program: Program, repeats: int) -> float:
    """Returns the least processor time that a run takes in a call of a program, divided by the devices."""
    num = min(program.lanes * program.num_devices, prepared.runs.largest_group)
    inputs = program.inputs(prepared.runs.part(0, num), program.place_data(prepared.data))
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        program.run(inputs)
        seconds.append(time.process_time() - start)
    return min(seconds) / num


def measure(quick: bool) -> dict[str, Any]:
    """Measures all choices of each problem, and then what "auto" chooses."""
    choices, found = (("map", 4) if quick else CHOICES), {}
    for problem in PROBLEMS[3:5] if quick else PROBLEMS:
        prepared = Prepared.of(spec(problem))
        most = -(-prepared.runs.largest_group // len(prepared.devices))
        seconds: dict[str, float] = {}
        compiling: dict[str, float] = {}
        for choice in choices:
            # Larger numbers are the same program.
            if isinstance(choice, int) and choice >= most:
                continue
            lanes = {"map": 1, "vmap": most}.get(choice, choice)
            if lanes * len(prepared.devices) * min(seconds.values(), default=0.0) > MOST_SECONDS:
                continue
            program = program_of(prepared, choice)
            compiling[str(choice)] = program.compile_seconds
            seconds[str(choice)] = processor_seconds(prepared, program, 1 if quick else 4)
        # All programs are compiled by now: what is left of the choice is its calls.
        start = time.perf_counter()
        chosen = choose_vectorize(prepared, None, 10**9)
        calls = time.perf_counter() - start
        if str(chosen) not in seconds:
            seconds[str(chosen)] = processor_seconds(prepared, program_of(prepared, chosen), 1 if quick else 4)
        found[problem.name] = {
            "seconds": seconds,
            "compile_seconds": compiling,
            "chosen": str(chosen),
            "call_seconds": calls,
            "runs": prepared.runs.num,
            "map_call_seconds": part_seconds(prepared, program_of(prepared, "map"), len(prepared.devices)),
        }
    return found


def run(quick: bool = False) -> timing.Report:
    """Measures in a process of a device a core, and compares."""
    with workers.worker(len(workers.cores()), quick) as call:
        found = call(measure, quick)
    rows, ratios = [], {}
    for name, one in found.items():
        seconds = one["seconds"]
        best = min(seconds, key=seconds.__getitem__)
        ratios[name] = seconds[one["chosen"]] / seconds[best]
        cells = [timing.number(1e3 * seconds[str(c)]) if str(c) in seconds else "" for c in CHOICES]
        extra = one["chosen"]
        if extra not in map(str, CHOICES):
            extra = f"{extra} ({timing.number(1e3 * seconds[extra])})"
        rows.append((name, *cells, extra, timing.number(ratios[name])))
    header = ["problem", *(f"`{choice}`" for choice in CHOICES), "auto chose", "times the best fixed choice"]
    text = [
        "Milliseconds of processor time a run (shortened, so that calls are short), by the number of runs that a "
        "device computes at once. No number stands where it is as many as a device has runs, which is `vmap`, or "
        "where a call would take too long to be the fastest. A choice spends at most "
        f"{SHARE:.0%} of a sweep's time, or up to three seconds of a shorter one, and none of a sweep of less than "
        "ten seconds: shorter sweeps stay with `map`, or with the best of fewer numbers. Here the sweep is large "
        "enough to measure what it wants.",
        timing.table(header, rows),
    ]
    worst = max(ratios.values())
    target = timing.Target(
        f"auto within {TOLERANCE} times the best fixed choice on each problem",
        f"{timing.number(worst)} times at worst; {sum(r <= TOLERANCE for r in ratios.values())} of {len(ratios)}",
        worst <= TOLERANCE,
    )
    return timing.Report("How many runs at once", "\n\n".join(text), found, [target])
