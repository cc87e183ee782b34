"""Measures what the hypergradient adds to the wall time of text.toml's training, beside uniform mixing.

``python -m experiments.fewer_weight_updates.text_overhead`` prints the table. The sides take turns. In a turn a side
runs ``NUM_STEPS`` steps of its compiled training from the same state, and nothing else. Two of the sides are uniform
mixing, so that their ratio shows the noise.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from experiments.fewer_weight_updates.text import Text, fit_of, load, mode_of, rule_of, start
from mixjax import mixing

LIMIT = 1.25
BASELINE = "uniform mixing"
# Steps of a turn.
NUM_STEPS = 256
# Rounds from one that is differentiated to the next.
EVERY = 16


def sides() -> dict[str, Text]:
    """Returns each side's settings by name."""
    found = {BASELINE: {}, "uniform mixing again": {}}
    for T, every in ((16, 1), (16, EVERY), (4, EVERY)):
        found[f"T = {T}, one round in {every}"] = {"method": "hypergradient", "T": T, "rounds_per_update": every}
    return {name: Text(num_steps=NUM_STEPS, num_records=1, **settings) for name, settings in found.items()}


def compile_run(config: Text) -> Callable[[], Any]:
    """Compiles the training; returns a function without arguments that trains ``num_steps`` and waits for the end."""
    graphdef, params, optimizer = start(config, jax.random.key(0))
    parts, rule = jax.tree.map(jnp.asarray, load(config)), rule_of(config)
    state = mixing.init_state(params, optimizer, jnp.ones(len(config.domains)), rule)

    def run(state, parts):
        fit = fit_of(config, graphdef, optimizer, parts, jax.random.key(1))
        return fit(
            rule,
            state,
            num_steps=config.num_steps,
            T=config.T,
            rounds_per_update=config.rounds_per_update,
            mode=mode_of(config),
        )

    program = jax.jit(run).lower(state, parts).compile()
    return lambda: jax.block_until_ready(program(state, parts))


def measure(settings: Mapping[str, Text], turns: int) -> dict[str, list[float]]:
    """Measures the seconds of each side, one number for each turn."""
    runs = {name: compile_run(config) for name, config in settings.items()}
    timing.interleave(runs, 1)
    return timing.interleave(runs, turns)


def report(seconds: Mapping[str, Sequence[float]]) -> str:
    """Writes each side's time over that of uniform mixing in the same turn: the median with a 95 % interval."""
    rows = []
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, seconds[BASELINE], strict=True)]
        low, high = timing.median_interval(ratios)
        verdict = "yes" if high <= LIMIT else "no" if low > LIMIT else "undecided"
        rows.append((name, f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})", verdict))
    step = timing.summarize([1e3 * s / NUM_STEPS for s in seconds[BASELINE]])
    return "\n".join(
        [
            timing.table(["side", "times uniform mixing, median (95 %)", f"at most {LIMIT}"], rows),
            f"\n{len(seconds[BASELINE])} turns of {NUM_STEPS} steps; a step of uniform mixing takes {step} ms.",
            *(f"- {name}: {value}" for name, value in timing.machine().items()),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Overhead of hypergradients on text.toml's model.")
    parser.add_argument("--turns", type=int, default=25)
    print(report(measure(sides(), parser.parse_args(arguments).turns)))


if __name__ == "__main__":
    main()
