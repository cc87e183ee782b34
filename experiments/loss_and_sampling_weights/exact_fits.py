"""Fits two domains of one linear model exactly, for the studies of paper 000's section 3.

Features have unit variance. They and the noise are uniform, hence bounded as theorems 3.3 and 3.4 ask. Each study draws
from streams of its own, ``fold_in(key, number)``:

- 0: ``least_squares``;
- 1 and 3: ``training_residuals``;
- 2: the validation sets of ``generalisation_bound``.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.loss_and_sampling_weights import glm
from mixjax import rules, samplers, signals

__all__ = ["PRIOR", "UNIT", "Moments", "draw", "fit", "hold_out", "one_shot", "ratio", "squared_error", "summarise"]

PRIOR = (0.5, 0.5)
# a uniform variable on [-UNIT, UNIT] has variance 1
UNIT = math.sqrt(3.0)


class Moments(NamedTuple):
    """Holds what a weighted fit needs: means over a domain's examples.

    Attributes:
        gram: ``[2, d, d]``, the means of ``x xᵀ``.
        cross: ``[2, d]``, the means of ``x y``.
    """

    gram: jax.Array
    cross: jax.Array


def draw(key: jax.Array, problem: glm.LinearModel, num: int) -> tuple[jax.Array, jax.Array]:
    """Draws ``num`` examples of each domain: ``x`` ``[2, num, d]`` and ``y`` ``[2, num]``."""
    x_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (2, num, problem.dim), minval=-UNIT, maxval=UNIT)
    noise = jax.random.uniform(noise_key, (2, num), minval=-UNIT, maxval=UNIT)
    return x, x @ glm.truth(problem.dim) + jnp.sqrt(jnp.asarray(problem.noise))[:, None] * noise


def hold_out(num: int) -> tuple[int, samplers.Partition, float]:
    """Splits ``num`` examples of each domain as theorem A.4 does.

    Returns:
        ``(training examples a domain, the held-out ones, ρ = 1 - 1/sqrt|S|)``.
    """
    rho = 1.0 - 1.0 / math.sqrt(2 * num)
    kept, held_out = samplers.split(samplers.partition(np.repeat(np.arange(2), num)), rho)
    return int(kept.sizes[0]), held_out, rho


def summarise(x: jax.Array, y: jax.Array) -> Moments:
    """Returns the moments of ``x`` ``[2, n, d]`` and ``y`` ``[2, n]``."""
    num = x.shape[1]
    return Moments(jnp.einsum("kni,knj->kij", x, x) / num, jnp.einsum("kni,kn->ki", x, y) / num)


def fit(weights: jax.Array, moments: Moments) -> jax.Array:
    """Returns the minimiser ``[d]`` of ``sum_d c_d mean_{S_d} (θᵀx - y)²``."""
    gram, cross = (jnp.tensordot(weights, part, 1) for part in moments)
    return jnp.linalg.solve(gram, cross)


def squared_error(params: jax.Array) -> jax.Array:
    """Returns ``|θ - θ_gt|²``."""
    return jnp.sum(jnp.square(params - glm.truth(params.size)))


def one_shot(key: jax.Array, choose, x: jax.Array, y: jax.Array, train: Moments, updates: int):
    """Runs algorithm 1 with exact fits in place of SGD; ``choose(key)`` gives the held-out points of an update.

    Returns:
        ``(params [updates, d], weights [2])``: the fit after each update, and the last loss weights.
    """
    rule, x, y = rules.one_shot_fgls(1.0), x.reshape(-1, x.shape[-1]), y.reshape(-1)

    def update(carry, key):
        params, state = carry
        indices, domain_ids = choose(key)
        losses = jnp.square(x[indices] @ params - y[indices])
        state = rule.update(state, **signals.moments(losses, domain_ids, 2).signals())
        params = fit(state.weights, train)
        return (params, state), params

    state = rule.init(PRIOR)
    first = fit(state.weights, train)
    (_, state), path = jax.lax.scan(update, (first, state), jax.random.split(key, updates))
    return path, state.weights


def ratio(a, b):
    """Returns values, one a seed, whose mean is ``mean(a) / mean(b)`` and whose standard error is the ratio's."""
    a, b = a.astype(float), b.astype(float)
    centre = a.mean("seed") / b.mean("seed")
    return centre + (a - centre * b) / b.mean("seed")
