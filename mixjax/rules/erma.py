"""Implements ERMA, loss weights that lower a bound of the generalisation gap (paper 000, section 3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import MAX_LOG_W, bounded, exponentiated_step, first_state, if_news, read_signals, share
from mixjax.rules.states import LiteralWeightState, LogWeightState
from mixjax.types import WeightRule

__all__ = ["erma"]


def erma(
    gamma1: ArrayLike = 0.01,
    gamma2: ArrayLike = 0.05,
    *,
    normalised: bool = True,
    max_log_step: ArrayLike = 5.0,
) -> WeightRule:
    r"""Makes loss weights descend a variance-based bound of the generalisation gap, by mirror descent.

    .. math:: w_d \leftarrow w_d \exp(\gamma_1 \pi_d G L_d - \gamma_2 \pi_d w_d V_d), \qquad
              G = \sum_j \pi_j (1 - w_j) L_j, \qquad c_d \propto \pi_d w_d

    ``w`` is the raw weights, 1 at first, and ``c`` is ``state.weights``. ``pi`` is the ``prior``, ``L`` is ``losses``,
    ``V`` is ``loss_vars``. The second term takes weight from domains
    whose loss varies. The first term gives weight to domains of high loss where ``G`` is positive, and to domains of
    low loss where ``G`` is negative.

    Args:
        gamma1: non-negative scalar, in 1 / loss²; the rate of the first term.
        gamma2: non-negative scalar, in 1 / loss²; the rate of the second term. At 0 the weights never leave the prior,
            since ``G`` is 0 as long as ``w = 1``.
        normalised: True rescales ``w`` after each step to ``w_d = c_d / pi_d``, whose mean under the prior is 1. At a
            fixed point the bound's partial derivatives with respect to ``w`` are then equal, which under a prior that
            is not uniform is not the bound's minimum on the simplex. False never rescales ``w``. The fixed point is
            then the bound's minimiser, ``w_d`` proportional to ``L_d / V_d``. Only ``c`` is normalised, and an unseen
            row's ``w`` is scaled by the same factor as the seen rows' total.
        max_log_step: positive scalar; bound on the exponent's absolute value.

    Signals:
        losses: mean losses ``[D]``.
        loss_vars: variances of the loss ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LogWeightState`. Rows not seen keep
        their ``c_d``, and ``G`` sums over the rows seen.

    Raises:
        ValueError: a ``gamma1`` or ``gamma2`` that is negative or not finite, a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.erma(gamma1=0.0, gamma2=2.0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(losses=jnp.array([1.0, 1.0]), loss_vars=jnp.array([0.0, jnp.log(3.0)]))
        >>> rule.update(state, counts=jnp.array([9, 9]), **signals).weights.tolist()
        [0.75, 0.25]

    References:
        Paper 000, eq. 11-12 and appendix B. In its symbols, ``gamma1 = 4 eta`` (the printed "4 eta pi" counts the prior
        twice) and ``gamma2 = 2 C eta / N``, with the step size ``eta``, a constant ``C``, and ``N`` validation examples
        of which domain ``d`` has ``pi_d N``. Deviations: the exponent is clipped to
        ``±max_log_step`` and raw ``w`` is kept within ``exp(±80)``, since for losses of 1e3 the literal recursion
        reaches 0 (absorbing) or 0/0 in one step.
    """
    check_range("gamma1", gamma1, 0.0)
    check_range("gamma2", gamma2, 0.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        kind = LogWeightState if normalised else LiteralWeightState
        return first_state(kind, prior, log_w=jnp.zeros_like(prior))

    def update(state, *, counts, losses, loss_vars, **signals):
        del signals
        seen, losses, loss_vars = read_signals(state, counts, losses=losses, loss_vars=loss_vars)
        rate1, rate2 = jnp.asarray(gamma1, jnp.float32), jnp.asarray(gamma2, jnp.float32)
        pi, w = state.prior, jnp.exp(state.log_w)

        # Eq. 12. Every intermediate result is bounded, since a product of two large factors is infinite in float32.
        gap = bounded(jnp.sum(bounded(pi * (1.0 - w) * losses)))
        gain = bounded(bounded(rate1 * pi * gap) * losses)
        cost = bounded(bounded(rate2 * pi * w) * loss_vars)
        step = bounded(gain - cost, jnp.asarray(max_log_step, jnp.float32))

        log_w = bounded(state.log_w + jnp.where(seen, step, 0.0), MAX_LOG_W)
        log_scores = jnp.log(pi) + log_w
        if normalised:
            return exponentiated_step(state, counts, log_scores, seen)
        # The literal recursion keeps the scale of its raw weights, which exponentiated_step would normalise away.
        weights = share(state.weights, log_scores, seen)
        new = state._replace(weights=weights, log_w=_rescaled(state, log_w, seen))
        return if_news(counts, new, state, seen)

    return WeightRule(init, update)


def _rescaled(state, log_w, seen):
    """Scales raw weights of unseen rows as the seen rows' total grows, to keep ``c`` proportional to ``pi * w``."""

    def log_total(log_w):
        logs = jnp.where(seen, jnp.log(state.prior) + log_w, -jnp.inf)
        # Without any row seen both totals would be -inf, and their difference NaN.
        return jax.nn.logsumexp(jnp.where(jnp.any(seen), logs, 0.0))

    growth = log_total(log_w) - log_total(state.log_w)
    return bounded(jnp.where(seen, log_w, log_w + growth), MAX_LOG_W)
