r"""Draws strongly convex quadratics of one Hessian, and computes T inner steps and their hypergradient by a formula.

In the Hessian's eigenbasis, with curvatures ``λ``, domain minima ``m_k``, the learning rate ``η`` and ``s = 1 - ηλ``:

.. math:: f_k(x) = \tfrac{1}{2} \lVert x - m_k \rVert_\Lambda^2, \qquad F(x) = \tfrac{1}{2} \lVert x - u \rVert^2

.. math:: x_T = s^T x_0 + (1 - s^T) \textstyle\sum_k c_k m_k - η \sum_k c_k Z_k, \qquad
          g_k = \langle (1 - s^T) m_k - η Z_k,\; x_T - u \rangle + \text{const}

where ``Z_k = Σ_t s^(T-1-t) ξ_k,t`` gathers the noise of domain ``k``'s gradients. It is normal, with variance
``σ² (1 - s^2T) / (1 - s²)`` in each coordinate. The constant is the same for all ``k``, so no rule sees it.

A round of any T thus costs as much as one step. A run without noise equals that of :func:`mixjax.mixing.fit` up to
rounding; with noise, the two have the same distribution.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.types import WeightRule

# The smallest and the largest curvature, μ and L.
SPECTRUM = (0.2, 1.0)
# Every domain has at least this share in the best weights.
LEAST_SHARE = 0.15


class Quadratics(NamedTuple):
    """Holds one instance.

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
    """Holds the end of a run.

    Attributes:
        mean_weights: ``[D]``, the mean of the weights of all rounds.
        last_weights: ``[D]``, the weights after the last round.
        params: ``[d]``, the parameters after the last round.
    """

    mean_weights: jax.Array
    last_weights: jax.Array
    params: jax.Array


def instance(key: jax.Array, num_domains: int, dim: int) -> Quadratics:
    """Draws an instance: minima 2 N(0, I), best weights inside the simplex, a gradient of norm 1 at their optimum."""
    keys = jax.random.split(key, 3)
    minima = 2 * jax.random.normal(keys[0], (num_domains, dim))
    free = jax.random.exponential(keys[1], (num_domains,))
    best = LEAST_SHARE + (1 - num_domains * LEAST_SHARE) * free / free.sum()
    # At the best weights the validation loss's gradient is orthogonal to every direction in which weights can move.
    across, _ = jnp.linalg.qr((minima[1:] - minima[0]).T)
    slope = jax.random.normal(keys[2], (dim,))
    slope -= across @ (across.T @ slope)
    target = best @ minima - slope / jnp.linalg.norm(slope)
    return Quadratics(jnp.geomspace(*SPECTRUM, dim), minima, target, best)


def excess(problem: Quadratics, weights: jax.Array) -> jax.Array:
    """Returns the validation loss at the optimum for ``weights`` less that for the best weights.

    It is computed from the difference of the weights, so that small differences are exact.
    """
    return jnp.square((weights - problem.best) @ problem.minima).sum(-1) / 2


def excess_of(problem: Quadratics, params: jax.Array) -> jax.Array:
    """Returns the validation loss at ``params`` less that at the optimum for the best weights."""
    best = problem.best @ problem.minima
    return jnp.square(params - best).sum(-1) / 2 + (params - best) @ (best - problem.target)


def largest_slope(problem: Quadratics) -> jax.Array:
    """Returns ``G``, the largest entry that a centred hypergradient can have at the optimum of some weights.

    The entries are linear in the weights, so the largest one is at a vertex of the simplex.
    """
    slopes = problem.minima @ (problem.minima - problem.target).T
    return jnp.abs(slopes - slopes.mean(0)).max()


def loss_of(problem: Quadratics):
    """Returns the function of a domain's loss, ``loss(params, minimum)``."""

    def loss(params, minimum):
        return jnp.sum(problem.curvatures * jnp.square(params - minimum)) / 2

    return loss


def noise_scale(shrink: jax.Array, T: ArrayLike) -> jax.Array:
    """Returns the standard deviation of ``Z_k`` in each coordinate, for noise of standard deviation 1."""
    return jnp.sqrt((1 - shrink ** (2 * T)) / (1 - shrink**2))


def steps(problem: Quadratics, rate: ArrayLike, T: ArrayLike, weights, params, noise) -> tuple[jax.Array, jax.Array]:
    """Takes T inner steps with the noise ``Z`` ``[D, d]``; returns the parameters and the hypergradients ``[D]``."""
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
    """Runs rounds of T steps and one update of the weights, from parameters 0 and uniform weights.

    Args:
        problem: an instance.
        rule: the rule that moves the weights.
        rate: ``η``, the learning rate.
        T: steps a round; may be traced.
        num_rounds: number of rounds; may be traced.
        noise: ``[at least num_rounds, D, d]``, ``Z`` divided by its :func:`noise_scale`; None for full gradients.

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
