"""What the hypergradient adds to the wall time of text.toml's training, beside uniform mixing, side by side.

``python -m experiments.fewer_weight_updates.text_overhead`` prints the table. The sides take turns, each so many steps
of its compiled training from the same state; nothing but training is in them. Two of them are uniform mixing, which
shows the noise.
"""

import argparse
import statistics

import jax
import jax.numpy as jnp

from experiments.benchmarks import timing
from experiments.fewer_weight_updates.text import Text, fit_of, load, mode_of, rule_of, start
from mixjax import mixing

LIMIT = 1.25
BASELINE = "uniform mixing"
HORIZONS, EVERY = (1, 4, 16), 16


def sides(horizons=HORIZONS, every: int = EVERY) -> dict[str, Text]:
    """Each side's settings, by name."""
    found = {BASELINE: Text(), "uniform mixing again": Text()}
    for r in (1, every):
        for T in horizons:
            found[f"T = {T}, one round in {r}"] = Text(method="hypergradient", T=T, every=r)
    return found


def compile_run(config: Text, num_steps: int):
    """A function of no arguments that trains for so many steps, and is done when it returns."""
    graphdef, params, optimizer = start(config, jax.random.key(0))
    parts, rule = jax.tree.map(jnp.asarray, load(config)), rule_of(config)
    state = mixing.init_state(params, optimizer, jnp.ones(len(config.domains)), rule)

    def run(state, parts):
        fit = fit_of(config, graphdef, optimizer, parts, jax.random.key(1))
        return fit(rule, state, num_steps=num_steps, T=config.T, every=config.every, mode=mode_of(config))

    program = jax.jit(run).lower(state, parts).compile()
    return lambda: jax.block_until_ready(program(state, parts))


def measure(settings: dict[str, Text], num_steps: int, turns: int) -> dict[str, timing.Summary]:
    """Wall time over that of uniform mixing in the same turn, by side: median and a 95 % interval of it."""
    runs = {name: compile_run(config, num_steps) for name, config in settings.items()}
    timing.interleave(runs, 1)
    seconds = timing.interleave(runs, turns)
    ratios = {name: [a / b for a, b in zip(s, seconds[BASELINE], strict=True)] for name, s in seconds.items()}
    return {
        name: timing.Summary(statistics.median(values), *timing.median_interval(values), turns)
        for name, values in ratios.items()
    } | {"ms a step": timing.summarize([1e3 * s / num_steps for s in seconds[BASELINE]])}


def main(arguments=None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.fewer_weight_updates.text_overhead", description=__doc__
    )
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args(arguments)
    settings, num_steps = sides(), max(HORIZONS) * EVERY
    found = measure(settings, num_steps, options.turns)
    step = found.pop("ms a step")
    rows = [
        (name, f"{r.median:.2f} ({r.low:.2f} to {r.high:.2f})", "yes" if r.high <= LIMIT else "no")
        for name, r in found.items()
    ]
    print(timing.table(["side", "times uniform mixing, median (95 %)", f"at most {LIMIT}"], rows))
    print(f"\n{options.turns} turns of {num_steps} steps; a step of uniform mixing takes {step} ms.")
    print("\n".join(f"- {name}: {value}" for name, value in timing.machine().items()))


if __name__ == "__main__":
    main()
