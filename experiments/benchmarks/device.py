"""Measures on whatever device JAX has: sweeps, hardness sampling, hypergradients and the live mix's feeding.

The same script runs on a CPU and, unchanged, on a GPU or TPU, where it takes at most eight minutes. The sizes follow
from the device: those of a CPU are scaled down by the environment variable ``MIXJAX_BENCHMARK_SCALE``, 0.02 unless it
says otherwise. All times are on the wall, and each rival is measured in turns with what it is compared with.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import draws, hypergradients, live_step, short_runs, timing

__all__ = ["Sizes", "run", "sizes"]

SCALE = "MIXJAX_BENCHMARK_SCALE"
CPU_SCALE = 0.02
NOT_MEASURED = "not run on a GPU"


class Sizes(NamedTuple):
    """Holds how much is measured.

    Attributes:
        runs: runs of a sweep.
        looped: runs of the sequential loop.
        examples: examples that hardness sampling draws from.
        steps: steps of draws.
        width: the network of the hypergradients and of the live mix.
        repeats: turns.
    """

    runs: int
    looped: int
    examples: int
    steps: int
    width: int
    repeats: int


def sizes(scale: float) -> Sizes:
    """Returns the sizes of an accelerator, scaled down.

    Args:
        scale: above 0, at most 1.

    Returns:
        Sizes, each at least as large as makes sense.

    Raises:
        ValueError: the scale is out of range.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"{SCALE} must be above 0 and at most 1, got {scale}.")
    return Sizes(
        runs=max(round(4096 * scale), 8),
        looped=max(round(32 * scale), 2),
        examples=max(round(10**7 * scale), 1000),
        steps=max(round(2000 * scale), 10),
        width=max(round(3072 * scale), 16),
        repeats=3,
    )


class Row(NamedTuple):
    """Holds a row of the table.

    Attributes:
        part: what is measured.
        unit: of the two numbers.
        ours: mixjax's number.
        rival: what it is compared with.
        theirs: the rival's number.
        times: theirs / ours within a turn.
    """

    part: str
    unit: str
    ours: timing.Summary
    rival: str
    theirs: timing.Summary
    times: timing.Summary


def _compared(part: str, unit: str, rival: str, ours: Any, theirs: Any, repeats: int, units: tuple) -> Row:
    """Times two functions in turns; ``units`` divide their seconds."""
    ours(), theirs()
    seconds = timing.interleave({"ours": ours, "theirs": theirs}, repeats)
    one, other = ([s / u for s in seconds[side]] for side, u in zip(("ours", "theirs"), units, strict=True))
    return Row(part, unit, timing.summarize(one), rival, timing.summarize(other), timing.ratios(other, one))


def sweeps(size: Sizes, quick: bool) -> list[Row]:
    """Compares a sweep with a loop of jitted runs on one device."""
    rows = []
    for problem in short_runs.problems(quick)[1:3]:
        sweep = functools.partial(short_runs.sweep, problem, size.runs, "auto", None)
        loop = functools.partial(short_runs.loop, problem, size.looped)
        part = f"a sweep of {size.runs} runs, {problem.name}"
        units = (1e-3 * size.runs, 1e-3 * size.looped)
        rows.append(_compared(part, "ms a run", "a loop of jitted runs", sweep, loop, size.repeats, units))
    return rows


def hardness(size: Sizes) -> list[Row]:
    """Compares hardness sampling in jit with uniform draws of as many indices."""
    run_steps = draws.mixjax_side(size.examples, 64, True)

    def uniform(state, key):
        indices = jax.random.randint(key, (64,), 0, size.examples)
        return state.at[indices].set(draws.fresh(indices))

    plain = draws.loop(uniform, jax.numpy.asarray(draws.losses_of(size.examples)))
    units = (1e-6 * size.steps,) * 2
    part = f"hardness sampling, n = {size.examples:,}, B = 64 drawn and written back"
    ours, theirs = (functools.partial(side, size.steps) for side in (run_steps, plain))
    return [_compared(part, "µs a step", "uniform draws, losses written", ours, theirs, size.repeats, units)]


def hypergrads(size: Sizes) -> list[Row]:
    """Compares hypergradients with plain training steps."""
    num_steps, domains = 10, 8
    sides, _, _ = hypergradients.cell(domains, num_steps, size.width)
    rows = []
    for mode in ("reverse, every state kept", "alignment"):
        part = f"hypergradient, {mode}, T = {num_steps}, D = {domains}, width {size.width}"
        units = (1e-3,) * 2
        rows.append(_compared(part, "ms", "plain training steps", sides[mode], sides["plain"], size.repeats, units))
    return rows


def feeding(size: Sizes) -> list[Row]:
    """Compares training that the live mix feeds with training on batches that were loaded before."""
    with tempfile.TemporaryDirectory() as folder:
        training = live_step.Training(200, 256, size.width, f"{folder}/ledger.jsonl")
        ours, theirs = (functools.partial(side, 20) for side in (training.live, training.loaded))
        part = f"training fed by the live mix, B = 256, D = 200, width {size.width}"
        row = _compared(part, "ms a step", "batches loaded before", ours, theirs, size.repeats, (0.02, 0.02))
        training.close()
    return [row]


def run(quick: bool = False) -> timing.Report:
    """Measures all parts on JAX's default device."""
    on_cpu = jax.default_backend() == "cpu"
    scale = float(os.environ.get(SCALE, CPU_SCALE if on_cpu else 1.0))
    size = sizes(1e-3 if quick else scale)
    parts: list[Callable[[], list[Row]]] = [
        functools.partial(sweeps, size, quick),
        functools.partial(hardness, size),
        functools.partial(hypergrads, size),
        functools.partial(feeding, size),
    ]
    rows = [row for part in parts for row in part()]
    device = jax.devices()[0].device_kind
    said = f"**Not run on a GPU**: this is a CPU, and sizes are scaled by {scale:g}. " if on_cpu else ""
    text = [
        f"{said}Measured on {len(jax.devices())} x {device}. The same command on a GPU measures there, at full size, "
        "in at most eight minutes.",
        timing.table(
            ["part", "unit", "mixjax", "beside", "that takes", "that / mixjax, within a turn"],
            [(row.part, row.unit, row.ours, row.rival, row.theirs, row.times) for row in rows],
            text_columns=2,
        ),
    ]
    targets = [
        timing.Target(
            f"on a GPU: {rows[0].part.split(', ')[1]}, a sweep at least 500 times as fast as {rows[0].rival}",
            NOT_MEASURED if on_cpu else f"{rows[0].times} times",
            None if on_cpu else rows[0].times.median >= 500,
        ),
        timing.Target(
            "on a GPU: feeding by the live mix takes at most 5 % of a step",
            NOT_MEASURED if on_cpu else f"{rows[-1].times} times as fast from loaded batches",
            None if on_cpu else rows[-1].times.median >= 0.95,
        ),
    ]
    data = {"device": device, "scale": scale, "rows": [row._asdict() for row in rows]}
    return timing.Report("On whatever device there is", "\n\n".join(text), data, targets)
