"""Computes the weights that maximise a distributionally robust objective, for three divergences (paper 004)."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_choice, check_non_negative, check_positive, check_range
from mixjax.meshes import spec_of, with_auto_axes

__all__ = ["Divergence", "check_arguments", "log_ratios", "penalty"]

Divergence = Literal["kl", "chi2", "cvar"]
"""Names of the divergences that :func:`mixjax.rules.dro` defines."""

# Each step cuts (distance from the mean 1 times slope) by four, so n = 1e6 in float32 takes about 35 steps at worst.
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
    # The lowest float and not -inf, whose difference from itself is NaN, for a rule that has not seen any row yet.
    losses = jnp.where(there, losses, jnp.finfo(losses.dtype).min)
    # The difference of two losses near the ends of the float's range is infinite.
    gaps = jnp.minimum(losses.max() - losses, jnp.finfo(losses.dtype).max)
    gaps = jnp.where(there, gaps, 0.0)
    if divergence == "cvar":
        return with_auto_axes(_cvar, spec_of(losses))(losses, prior, 1.0 / (1.0 + beta))
    rate = beta / scale if divergence == "kl" else 0.5 * beta / scale
    return -_times(rate, gaps) if divergence == "kl" else jnp.log(_pearson(rate, gaps, prior))


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


def _times(rate, gaps):
    """Returns ``rate * gaps``; 0 where a gap is not positive, also at ``rate = inf``, where infinity times 0 is NaN."""
    positive = gaps > 0
    return jnp.where(positive, rate * jnp.where(positive, gaps, 1.0), 0.0)


# Outside jit a while_loop compiles anew at each call, because the functions given to it are new.
@jax.jit
def _pearson(rate, gaps, prior):
    """Solves eq. 34 for ``z = [top - rate gaps]_+`` of prior-mean 1, by Newton on ``top`` (Michelot), without a sort.

    The mean is convex and piecewise linear in ``top``. Newton starts with all entries kept, which gives a ``top`` that
    is never too low. From there ``top`` falls, and so does ``level``, the largest gap kept. It stops at the first level
    that leaves something of the mean: ``top`` is then ``rate level + excess``. A step costs O(n).

    ``top`` itself is never computed, because it may be as large as one over the prior of the hardest entries. Entries
    at the edge of the support may hold most of the prior, and the rounding of ``top`` would be in the ``z`` of them
    all. ``level`` is exact, and ``excess`` is exact up to rounding divided by the prior of the entries kept.
    """
    tiny = jnp.finfo(prior.dtype).tiny

    def excess_over(level):
        kept = jnp.where(gaps <= level, prior, 0.0)
        return (1.0 - jnp.sum(kept * _times(rate, level - gaps))) / jnp.maximum(kept.sum(), tiny)

    def is_too_high(carry):
        level, excess, step = carry
        # At level 0 only the hardest entries are left, and they need nothing.
        return (excess < 0) & (level > 0) & (step < _MAX_NEWTON_STEPS)

    def body(carry):
        level, excess, step = carry
        # The first comparison makes the level fall even where the excess is lost in rounding.
        below = (gaps < level) & (_times(rate, level - gaps) >= -excess)
        level = jnp.max(jnp.where(below, gaps, 0.0))
        return level, excess_over(level), step + 1

    # ``top`` is at most one over the prior of the hardest entries, so larger gaps are cut for certain. Without them
    # nothing overflows below.
    hardest = jnp.sum(jnp.where(gaps > 0, 0.0, prior))
    highest = jnp.max(jnp.where(_times(rate, gaps) < 1.0 / jnp.maximum(hardest, tiny), gaps, 0.0))
    level, excess, _ = jax.lax.while_loop(is_too_high, body, (highest, excess_over(highest), 0))
    # Rounding may leave the excess of the last step below zero by a little.
    return jnp.where(gaps <= level, _times(rate, level - gaps) + jnp.maximum(excess, 0.0), 0.0)


def _cvar(losses, prior, level):
    """Returns the log of how much of its cap each entry gets.

    Entries above the quantile of the losses get 1, entries below it 0. Entries at the quantile share what is left of
    the level. Only the order of the losses counts, so they are compared themselves: beside a loss of 1e8, the gaps of
    1 and 2 are one number in float32.
    """
    order = jnp.argsort(losses, descending=True)
    index = jnp.sum(jnp.cumsum(prior[order]) < level)
    # A cumulative sum that rounding keeps below the level everywhere would give an index past the end.
    cut = losses[order][jnp.minimum(index, losses.size - 1)]
    above = jnp.sum(jnp.where(losses > cut, prior, 0.0))
    at = jnp.sum(jnp.where(losses == cut, prior, 0.0))
    filled = jnp.clip((level - above) / jnp.maximum(at, jnp.finfo(prior.dtype).tiny), 0.0, 1.0)
    # Without any loss above the quantile, the entries at the quantile get everything. Level 0 would give them log 0.
    filled = jnp.where(cut < losses.max(), filled, 1.0)
    return jnp.where(losses > cut, 0.0, jnp.where(losses == cut, jnp.log(filled), -jnp.inf))
