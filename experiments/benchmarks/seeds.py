"""Measures what a run costs as seeds are added, by ``vectorize="map"`` and ``"vmap"``, and what is compiled again."""

import dataclasses
import functools
from typing import NamedTuple

import jax

import mixjax
from experiments.benchmarks import figure_1, timing
from experiments.loss_and_sampling_weights import linear

__all__ = ["run"]

MODES = ("map", "vmap")
# "linear or better" within the noise
TOLERANCE = 1.1


class Case(NamedTuple):
    """Holds a problem and how many seeds of it are run.

    Attributes:
        name: for the tables.
        config: the problem.
        seeds: the numbers of seeds.
        chunk: how many seeds a compiled call runs.
    """

    name: str
    config: linear.Linear
    seeds: tuple[int, ...]
    chunk: int


def cases(quick: bool) -> list[Case]:
    """Returns figure 1's problem scaled down tenfold, which has the same dynamics, and at full size."""
    full, chunk = figure_1.settings(quick)
    if quick:
        return [Case("tiny", full, (1, 4, 16), 4)]
    tenth = {"dim": 100, "num_examples": 200, "num_steps": 200, "learning_rate": 5e-4, "probe_every": 4}
    small = dataclasses.replace(full, **tenth)
    return [
        Case("scaled down", small, (1, 4, 16, 64, 256, 1024), 16),
        Case("full size", full, (1, 4, 16, 64), chunk),
    ]


def run(quick: bool = False) -> timing.Report:
    """Measures all cases, both ways in turns."""
    default = "map" if jax.default_backend() == "cpu" else "vmap"
    parts, data, targets = [], {}, []
    for case in cases(quick):
        measured = _measure(case, 2 if quick else 3)
        data[case.name] = measured
        parts.append(_text(case, measured))
        last, full = case.seeds[-1], min(n for n in case.seeds if n >= case.chunk)
        growth = timing.Summary(**measured[default]["growth"])
        targets += [
            timing.Target(
                f"{case.name}: a run costs no more with {last} seeds than with {full} (within noise: 1.1 times)",
                f"{growth} times ({default})",
                growth.median <= TOLERANCE,
            ),
            timing.Target(
                f"{case.name}: nothing is compiled for more seeds",
                ", ".join(f"{measured[mode]['compiled_later']} ({mode})" for mode in MODES) + " compilations",
                all(measured[mode]["compiled_later"] == 0 for mode in MODES),
            ),
        ]
    return timing.Report("Seeds", "\n\n".join(parts), data, targets)


def _measure(case: Case, repeats: int) -> dict:
    sets = figure_1.data_sets(case.config, figure_1.DATA_SETS)
    train = figure_1.trainer(case.config)

    # a function that no sweep has seen, so that compiling it is seen here
    def fresh(key, hparams, data):
        return train(key, hparams, data)

    sweeps = {
        mode: functools.partial(
            mixjax.sweep,
            fresh,
            data=sets,
            chunk=case.chunk,
            vectorize=mode,
        )
        for mode in MODES
    }
    found = {}
    for mode, sweep in sweeps.items():
        with timing.compilations() as first:
            compile_seconds = sweep(seeds=1).attrs["compile_seconds"]
        found[mode] = {"compile_seconds": compile_seconds, "compiled_first": len(first), "compiled_later": 0}

    def side(mode, n):
        with timing.compilations() as later:
            sweeps[mode](seeds=n)
        found[mode]["compiled_later"] += len(later)

    sides = {(mode, n): functools.partial(side, mode, n) for n in case.seeds for mode in MODES}
    seconds = timing.interleave(sides, repeats)
    full = min(n for n in case.seeds if n >= case.chunk)
    for mode in MODES:
        per_run = {n: [1e3 * s / (6 * n) for s in seconds[mode, n]] for n in case.seeds}
        found[mode]["ms_per_run"] = {n: timing.summarize(values)._asdict() for n, values in per_run.items()}
        found[mode]["growth"] = timing.ratios(per_run[case.seeds[-1]], per_run[full])._asdict()
    found["vmap_over_map"] = {n: timing.ratios(seconds["vmap", n], seconds["map", n])._asdict() for n in case.seeds}
    return found


def _text(case: Case, found: dict) -> str:
    rows = [
        (
            n,
            *(timing.Summary(**found[mode]["ms_per_run"][n]) for mode in MODES),
            timing.Summary(**found["vmap_over_map"][n]),
        )
        for n in case.seeds
    ]
    compiled = "; ".join(
        f'"{mode}" {timing.number(found[mode]["compile_seconds"])} s, {found[mode]["compiled_first"]} compilations for '
        f"the first sweep, {found[mode]['compiled_later']} for all others"
        for mode in MODES
    )
    return (
        f"**{case.name[0].upper()}{case.name[1:]}**: {figure_1.describe(case.config)}; 6 methods, {case.chunk} "
        f"seeds a compiled call. Fewer seeds than that pay for padding under vmap, and not under map. Compiling: "
        f"{compiled}.\n\n"
        + timing.table(["seeds", 'ms a run, "map"', 'ms a run, "vmap"', "vmap / map, within a turn"], rows)
    )
