"""Computes the weights that maximise a distributionally robust objective, for three divergences (paper 004)."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_choice, check_non_negative, check_positive, check_range

__all__ = ["Divergence", "check_arguments", "log_ratios", "penalty"]

Divergence = Literal["kl", "chi2", "cvar"]
"""Names of the divergences that :func:`mixjax.rules.dro` defines."""

# Each step cuts (excess times slope) by four, so n = 1e6 in float32 takes about 35 steps at worst.
_MAX_NEWTON_STEPS = 128


def check_arguments(beta: ArrayLike, divergence: Divergence, scale: ArrayLike) -> None:
    """Raises a ValueError for a ``beta``, ``divergence`` or ``scale`` outside the range that ``dro`` names."""
    check_non_negative("beta", beta)
    check_choice("divergence", divergence, get_args(Divergence))
    # The first check refuses zero, the second infinity.
    check_positive("scale", scale)
    check_range("scale", scale, 0.0)


def log_ratios(
    losses: jax.Array, prior: jax.Array, beta: jax.Array, divergence: Divergence, scale: jax.Array
) -> jax.Array:
    """Returns ``log(p̄ / prior)`` up to a constant, where ``p̄`` maximises the robust loss.

    Everything is written in ``gaps = max(L) - L``, so that no ``beta`` and no loss overflows, and a gap of zero stays
    zero at ``beta = inf``.

    Args:
        losses: ``L``, ``[n]``.
        prior: ``[n]``, non-negative; normalised here.
        beta: non-negative scalar of the losses' dtype.
        divergence: the name of ``phi``.
        scale: positive scalar of the losses' dtype.

    Returns:
        ``[n]``. An entry is -inf where ``p̄`` is zero, and has no meaning where the prior is zero.
    """
    there = prior > 0
    # The prior is all zero where a rule has not seen any row yet.
    prior = prior / jnp.maximum(prior.sum(), jnp.finfo(prior.dtype).tiny)
    losses = jnp.where(there, losses, -jnp.inf)
    # The difference of two losses near the ends of the float's range is infinite.
    gaps = jnp.minimum(losses.max() - losses, jnp.finfo(losses.dtype).max)
    gaps = jnp.where(there, gaps, 0.0)
    if divergence == "cvar":
        return _cvar(gaps, prior, 1.0 / (1.0 + beta))
    rate = beta / scale if divergence == "kl" else 0.5 * beta / scale
    # At beta = inf the product with a gap of zero would be NaN.
    scaled = jnp.where(gaps > 0, rate * gaps, 0.0)
    return -scaled if divergence == "kl" else jnp.log(_pearson(scaled, prior))


def penalty(weights: jax.Array, prior: jax.Array, divergence: Literal["kl", "chi2"]) -> jax.Array:
    """Returns the divergence ``sum_i pi_i phi(p_i / pi_i)`` of the weights ``p`` from the prior ``pi``.

    Args:
        weights: ``p``, ``[n]`` on the simplex.
        prior: ``pi``, ``[n]`` on the simplex; positive wherever the weights are.
        divergence: the name of ``phi``. There is no ``"cvar"``, whose divergence is 0 wherever it is finite.

    Returns:
        A non-negative scalar.
    """
    safe = jnp.where(prior > 0, prior, 1.0)
    change = weights - prior
    relative = change / safe
    if divergence == "chi2":
        return jnp.sum(change * relative)
    ratio = jnp.where(weights > 0, weights / safe, 1.0)
    # Near 1 the logarithm of the ratio loses the digits that log1p of its difference from 1 keeps.
    logs = jnp.where(ratio > 0.5, jnp.log1p(jnp.maximum(relative, -0.5)), jnp.log(ratio))
    return jnp.sum(weights * logs - change)


# Outside jit a while_loop compiles anew at each call, because the functions given to it are new.
@jax.jit
def _pearson(gaps, prior):
    """Solves eq. 34 for ``z = [top - gaps]_+`` of prior-mean 1, by Newton on ``top`` (Michelot): O(n) a step, no sort.

    The mean is convex and piecewise linear in ``top``. Newton starts at infinity, and its first step gives the solution
    as if no entry were cut, which is never too low. From there ``top`` falls monotonically. The loop stops when the
    support, hence ``top``, stops changing.
    """
    # ``top`` is at most one over the prior of the hardest entries, so larger gaps are cut for certain. Clipping them
    # bounds the point from which Newton falls.
    hardest = jnp.sum(jnp.where(gaps > 0, 0.0, prior))
    gaps = jnp.minimum(gaps, 1.0 / jnp.maximum(hardest, jnp.finfo(prior.dtype).tiny))

    def newton(top):
        kept = jnp.where(gaps < top, prior, 0.0)
        return (1.0 + jnp.sum(kept * gaps)) / kept.sum()

    def falls(carry):
        top, new, step = carry
        return (new < top) & (step < _MAX_NEWTON_STEPS)

    def body(carry):
        _, top, step = carry
        return top, newton(top), step + 1

    infinite = jnp.full((), jnp.inf, gaps.dtype)
    _, top, _ = jax.lax.while_loop(falls, body, (infinite, newton(infinite), 0))
    return jnp.maximum(top - gaps, 0.0)


def _cvar(gaps, prior, level):
    """Returns the log of how much of its cap each entry gets.

    Entries above the quantile of the losses get 1, entries below it 0. Entries at the quantile share what is left of
    the level.
    """
    order = jnp.argsort(gaps)
    index = jnp.sum(jnp.cumsum(prior[order]) < level)
    # A cumulative sum that rounding keeps below the level everywhere would give an index past the end.
    cut = gaps[order][jnp.minimum(index, gaps.size - 1)]
    above = jnp.sum(jnp.where(gaps < cut, prior, 0.0))
    at = jnp.sum(jnp.where(gaps == cut, prior, 0.0))
    filled = jnp.clip((level - above) / jnp.maximum(at, jnp.finfo(prior.dtype).tiny), 0.0, 1.0)
    # Without any loss above the quantile, the entries at the quantile get everything. Level 0 would give them log 0.
    filled = jnp.where(cut > 0, filled, 1.0)
    return jnp.where(gaps < cut, 0.0, jnp.where(gaps == cut, jnp.log(filled), -jnp.inf))
