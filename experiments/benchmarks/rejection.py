"""Times a draw in proportion to scores, by rejection and from the tree: a part of the benchmark ``norms``."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import draws, samplers, timing
from experiments.resampling_reweighting import schemes
from mixjax.samplers import proportional

__all__ = ["SIDES", "SKEWS", "run", "scores_of"]

SIZES = (10**3, 10**5, 10**7)
# largest score over the mean, which is the number of tries a draw takes
SKEWS = (2, 100)
BATCH = 64


def scores_of(n: int, skew: int) -> np.ndarray:
    """Draws scores in [0, 1] with mean ``1 / skew``."""
    return np.random.default_rng(n).uniform(size=n).astype(np.float32) ** (skew - 1)


def by_rejection(n: int, skew: int):
    """Draws by rejection: every example of the batch proposes until it is accepted, from an array of scores alone."""

    def step(scores, key):
        draw = functools.partial(schemes.draw_by_rejection, score=lambda i: scores[i], n=n, largest=1.0)
        indices, _, _ = jax.vmap(draw)(jax.random.split(key, BATCH))
        return scores.at[indices].set(scores[indices])

    return draws.loop(step, jnp.asarray(scores_of(n, skew)))


def from_tree(n: int, skew: int):
    """Draws from the sampler's tree of sums, and keeps the sums up."""
    sampler = proportional(n)

    def step(state, key):
        indices, _ = sampler.sample(state, key, BATCH)
        return sampler.update(state, indices, state.values[indices])

    return draws.loop(step, sampler.init(scores_of(n, skew)))


SIDES = {"by rejection": by_rejection, "samplers.proportional": from_tree}


def run(quick: bool) -> tuple[str, dict]:
    """Measures both ways.

    Args:
        quick: small sizes.

    Returns:
        The section's text and data, in microseconds.
    """
    sizes, repeats = (SIZES[:1], 3) if quick else (SIZES, 7)
    took = {
        (skew, n): samplers.summaries(samplers.timed({name: side(n, skew) for name, side in SIDES.items()}, repeats))
        for skew in SKEWS
        for n in sizes
    }
    rows = [
        (f"{name}, largest over mean {skew}", *(took[skew, n][name] for n in sizes)) for skew in SKEWS for name in SIDES
    ]
    text = (
        f"**A batch of {BATCH} in proportion to scores**, drawn and written back, microseconds. Rejection takes as "
        "many tries as the largest score is times the mean, on average, and a batch as many as its slowest draw:\n\n"
        + timing.table(["side", *(f"n = 10^{round(math.log10(n))}" for n in sizes)], rows)
    )
    data = {f"n={n} skew={skew}": {k: v._asdict() for k, v in values.items()} for (skew, n), values in took.items()}
    return text, data
