r"""Strongly convex quadratics of one Hessian, where T inner steps and their hypergradient are a formula.

In the Hessian's eigenbasis, with curvatures ``λ``, domain minima ``m_k``, the learning rate ``η`` and ``s = 1 - ηλ``:

.. math:: f_k(x) = \tfrac{1}{2} \lVert x - m_k \rVert_\Lambda^2, \qquad F(x) = \tfrac{1}{2} \lVert x - u \rVert^2

.. math:: x_T = s^T x_0 + (1 - s^T) \textstyle\sum_k c_k m_k - η \sum_k c_k Z_k, \qquad
          g_k = \langle (1 - s^T) m_k - η Z_k,\; x_T - u \rangle + \text{const}

where ``Z_k = Σ_t s^(T-1-t) ξ_k,t`` gathers the noise of domain ``k``'s gradients: normal, with variance
``σ² (1 - s^2T) / (1 - s²)`` in each coordinate. The constant is the same for all ``k``, which no rule sees. A round of
any T thus costs as much as one step, and a run is that of :func:`mixjax.mixing.fit` (up to rounding; with noise, in
law).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.types import WeightRule

SPECTRUM = (0.2, 1.0)  # smallest and largest curvature, μ and L
LEAST_SHARE = 0.15  # of a domain in the best weights


class Quadratics(NamedTuple):
    """One instance.

    Attributes:
        curvatures: ``[d]``, ``λ``, the same in every domain.
        minima: ``[D, d]``, the domains' ``m_k``.
        target: ``[d]``, ``u``.
        best: ``[D]``, the weights whose optimum has the least validation loss.
    """

    curvatures: jax.Array
    minima: jax.Array
    target: jax.Array
    best: jax.Array


class Run(NamedTuple):
    """Where a run ends: the mean of the weights trained with, the last weights ``[D]``, the parameters ``[d]``."""

    mean_weights: jax.Array
    last_weights: jax.Array
    params: jax.Array


def instance(key: jax.Array, num_domains: int, dim: int) -> Quadratics:
    """Minima 2 N(0, I); best weights inside the simplex, the validation loss's gradient there of norm 1."""
    keys = jax.random.split(key, 3)
    minima = 2 * jax.random.normal(keys[0], (num_domains, dim))
    free = jax.random.exponential(keys[1], (num_domains,))
    best = LEAST_SHARE + (1 - num_domains * LEAST_SHARE) * free / free.sum()
    across, _ = jnp.linalg.qr((minima[1:] - minima[0]).T)  # the gradient must be orthogonal to all that weights can do
    slope = jax.random.normal(keys[2], (dim,))
    slope -= across @ (across.T @ slope)
    target = best @ minima - slope / jnp.linalg.norm(slope)
    return Quadratics(jnp.geomspace(*SPECTRUM, dim), minima, target, best)


def excess(problem: Quadratics, weights: jax.Array) -> jax.Array:
    """The validation loss at the optimum for ``weights`` less that for the best ones; exact in small differences."""
    return jnp.square((weights - problem.best) @ problem.minima).sum(-1) / 2


def excess_of(problem: Quadratics, params: jax.Array) -> jax.Array:
    """The validation loss at ``params`` less that at the optimum for the best weights."""
    best = problem.best @ problem.minima
    return jnp.square(params - best).sum(-1) / 2 + (params - best) @ (best - problem.target)


def largest_slope(problem: Quadratics) -> jax.Array:
    """``G``: the largest entry that a centred hypergradient can have at an inner optimum; it is so at a vertex."""
    slopes = problem.minima @ (problem.minima - problem.target).T
    return jnp.abs(slopes - slopes.mean(0)).max()


def loss_of(problem: Quadratics):
    """A domain's loss, ``loss(params, minimum)``."""

    def loss(params, minimum):
        return jnp.sum(problem.curvatures * jnp.square(params - minimum)) / 2

    return loss


def noise_scale(shrink: jax.Array, T: ArrayLike) -> jax.Array:
    """The standard deviation of ``Z_k`` in each coordinate, for unit noise."""
    return jnp.sqrt((1 - shrink ** (2 * T)) / (1 - shrink**2))


def steps(problem: Quadratics, rate: ArrayLike, T: ArrayLike, weights, params, noise) -> tuple[jax.Array, jax.Array]:
    """T inner steps from ``params``, with the noise ``Z`` ``[D, d]``: the parameters after them, the hypergradients."""
    left = (1 - rate * problem.curvatures) ** T
    columns = (1 - left) * problem.minima - rate * noise
    params = left * params + weights @ columns
    return params, columns @ (params - problem.target)


def run(
    problem: Quadratics,
    rule: WeightRule,
    rate: ArrayLike,
    T: ArrayLike,
    num_rounds: ArrayLike,
    noise: jax.Array | None = None,
) -> Run:
    """Rounds of T steps and one update of the weights, from 0 and uniform weights.

    Args:
        problem: an instance.
        rule: for the weights.
        rate: ``η``.
        T: steps a round; may be traced.
        num_rounds: may be traced.
        noise: ``[at least num_rounds, D, d]``, ``Z`` over its :func:`noise_scale`; None for full gradients.

    Returns:
        A :class:`Run`.
    """
    scale = noise_scale(1 - rate * problem.curvatures, T)

    def round_(r, carry):
        state, mean, params = carry
        weights = state.weights
        z = 0.0 if noise is None else scale * noise[r]
        params, hypergrads = steps(problem, rate, T, weights, params, z)
        state = rule.update(state, counts=jnp.ones_like(weights), hypergrads=hypergrads)
        return state, mean + (weights - mean) / (r + 1), params

    state = rule.init(jnp.ones(len(problem.minima)))
    start = state, state.weights, jnp.zeros_like(problem.target)
    state, mean, params = jax.lax.fori_loop(0, num_rounds, round_, start)
    return Run(mean, state.weights, params)
