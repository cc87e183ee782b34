"""Implements ERMA, loss weights that lower a bound of the generalisation gap (paper 000, section 3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import MAX_LOG_W, bounded, exponentiated_step, if_news, read_signals, share
from mixjax.rules.states import LogWeightState
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

    ``pi`` is the ``prior``, ``L`` is ``losses``, ``V`` is ``loss_vars``. The second term takes weight from domains
    whose loss varies. The first term gives weight to domains of high loss where ``G`` is positive, and to domains of
    low loss where ``G`` is negative.

    Args:
        gamma1: non-negative scalar, in 1 / loss². ``4 * step_size`` of mirror descent on the bound's first term.
        gamma2: non-negative scalar, in 1 / loss². With ``gamma2 = 0``, ``w = 1`` never moves: ``G`` is 0 there.
        normalised: True rescales ``w`` after each step to prior-mean 1, i.e. ``w_d = c_d / pi_d``, the scale on which
            ``1 - w`` is centred. With a prior that is not uniform, the fixed point then equalises the bound's partial
            derivatives, which is not the bound's minimum on the simplex. False leaves ``w`` on its own scale. The
            fixed point is then the minimiser of the bound, ``w_d`` proportional to ``L_d / V_d``. Only the weights
            ``c`` are normalised, and the ``w`` of a row not seen follows the scale of the others.
        max_log_step: positive scalar; bound on the exponent's absolute value.

    Signals:
        losses: mean losses ``[D]``.
        loss_vars: variances of the loss ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LogWeightState`. Rows not seen keep
        their ``c_d``, and ``G`` sums over the rows seen.

    Raises:
        ValueError: a negative ``gamma1`` or ``gamma2``, or a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.erma(gamma1=0.0, gamma2=2.0)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(losses=jnp.array([1.0, 1.0]), loss_vars=jnp.array([0.0, jnp.log(3.0)]))
        >>> rule.update(state, counts=jnp.array([9, 9]), **signals).weights.tolist()
        [0.75, 0.25]

    References:
        Paper 000, eq. 11-12 and appendix B, where ``gamma1 = 4 eta`` (the printed "4 eta pi" counts the prior twice)
        and ``gamma2 = 2 C eta / |V|``, with ``|V_d| = pi_d |V|``. Deviations: the exponent is clipped to
        ``±max_log_step`` and raw ``w`` is kept within ``exp(±80)``, since for losses of 1e3 the literal recursion
        reaches 0 (absorbing) or 0/0 in one step.
    """
    check_range("gamma1", gamma1, 0.0)
    check_range("gamma2", gamma2, 0.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        return LogWeightState(prior, prior, jnp.zeros_like(prior))

    def update(state, *, counts, losses, loss_vars, **signals):
        del signals
        seen, losses, loss_vars = read_signals(state, counts, losses=losses, loss_vars=loss_vars)
        rate1, rate2 = jnp.asarray(gamma1, jnp.float32), jnp.asarray(gamma2, jnp.float32)
        pi, w = state.prior, jnp.exp(state.log_w)

        # Eq. 12. Each product of two bounded factors is bounded again: 1e30 * 1e30 is infinite in float32.
        gap = bounded(jnp.sum(pi * (1.0 - w) * losses))
        gain = bounded(bounded(rate1 * pi * gap) * losses)
        cost = bounded(bounded(rate2 * pi * w) * loss_vars)
        step = bounded(gain - cost, jnp.asarray(max_log_step, jnp.float32))

        log_w = bounded(state.log_w + jnp.where(seen, step, 0.0), MAX_LOG_W)
        log_scores = jnp.log(pi) + log_w
        if normalised:
            return exponentiated_step(state, counts, log_scores, seen)
        # The literal recursion keeps the scale of its raw weights, which exponentiated_step would normalise away.
        weights = share(state.weights, log_scores, seen)
        return if_news(counts, state._replace(weights=weights, log_w=_rescaled(state, log_w, seen)), state)

    return WeightRule(init, update)


def _rescaled(state, log_w, seen):
    """Moves the raw weights of the rows not seen with the total of the others, since their ``c`` stays as it is."""
    before = jax.nn.logsumexp(jnp.where(seen, jnp.log(state.prior) + state.log_w, -jnp.inf))
    after = jax.nn.logsumexp(jnp.where(seen, jnp.log(state.prior) + log_w, -jnp.inf))
    # Without any row seen both are -inf, and their difference is NaN.
    growth = jnp.where(jnp.any(seen), after - before, 0.0)
    return bounded(jnp.where(seen, log_w, log_w + growth), MAX_LOG_W)
