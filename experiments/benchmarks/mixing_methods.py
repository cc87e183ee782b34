"""Measures the processor time of a whole training with each mixing method, beside the uniform mix."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from experiments.live_mix.comparison import Comparison, load, train
from experiments.live_mix.methods import METHODS
from mixjax.runner import configs

__all__ = ["LIMIT", "OF_TRAINING", "holds", "run", "sides"]

CONFIGS = Path(__file__).parents[2] / "configs" / "live_mix"
LIMIT = 1.02
BASELINE, AGAIN = "uniform", "uniform again"
OF_TRAINING = tuple(name for name, method in METHODS.items() if method.reads == "training losses")
"""The methods that read losses of training batches only."""


def sides(quick: bool) -> dict[str, Comparison]:
    """Returns the settings of each side: those of the comparison, but for fewer steps and next to no test rows."""
    config = configs.load(CONFIGS / ("comparison_quick.toml" if quick else "comparison.toml"))
    moving = [name for name, method in METHODS.items() if method.moves]
    # Static mixes are the uniform one's program with other numbers.
    names = (BASELINE, "group_dro", "doremi") if quick else (BASELINE, *moving)
    short = {"num_steps": 10 if quick else 100, "eval_size": 1}
    found = {run.name: dataclasses.replace(run.values, **short) for run in config.runs if run.name in names}
    return {BASELINE: found[BASELINE], AGAIN: found[BASELINE], **found}


def run(quick: bool = False) -> timing.Report:
    """Measures all methods in turns."""
    settings = sides(quick)
    calls, compiled = _compiled(settings)
    timing.interleave(calls, 1)
    seconds = timing.interleave(calls, 2 if quick else 5, clock=time.process_time)
    over_uniform = {name: timing.ratios(seconds[name], seconds[BASELINE]) for name in seconds if name != BASELINE}
    steps = settings[BASELINE].num_steps
    rows = []
    for name, values in seconds.items():
        milliseconds = timing.summarize([1e3 * s / steps for s in values])
        rows.append((name, milliseconds, over_uniform.get(name, 1), f"{compiled[name]:.0f}"))
    header = ("method", "ms of processor time a step", "over the uniform mix", "s of processor time to compile")
    text = (
        f"Whole trainings of {steps} steps, proxies and probes included, as in `configs/live_mix/comparison.toml`. "
        f'"{AGAIN}" is the same program a second time, and shows the noise.\n\n{timing.table(header, rows)}'
    )
    targets = [
        timing.Target(
            f"{METHODS[name].title}, which reads training losses only: at most {LIMIT} times the uniform mix",
            str(over_uniform[name]),
            holds(over_uniform[name]),
        )
        for name in OF_TRAINING
        if name in over_uniform
    ]
    ratios = {
        name: [a / b for a, b in zip(seconds[name], seconds[BASELINE], strict=True)]
        for name in seconds
        if name not in (BASELINE, AGAIN)
    }
    data = {"seconds": seconds, "over_uniform": ratios, "compile_seconds": compiled}
    return timing.Report("Mixing methods: what they add to a training", text, data, targets)


def holds(summary: timing.Summary) -> bool | None:
    """Tells whether the median is within the limit; None where it is above the limit and not all turns are."""
    if summary.low <= LIMIT < summary.median:
        return None
    return summary.median <= LIMIT


def _compiled(settings: Mapping[str, Comparison]) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Compiles each side; returns functions without arguments that train and wait, and the processor time it took."""
    corpus = jax.tree.map(jnp.asarray, load(settings[BASELINE]))
    calls, seconds, programs = {}, {}, {}
    for name, config in settings.items():
        start = time.process_time()
        if config not in programs:
            program = jax.jit(lambda key, corpus, config=config: train(key, config, corpus))
            programs[config] = program.lower(jax.random.key(0), corpus).compile()
        seconds[name] = time.process_time() - start
        calls[name] = lambda program=programs[config]: jax.block_until_ready(program(jax.random.key(0), corpus))
    return calls, seconds
