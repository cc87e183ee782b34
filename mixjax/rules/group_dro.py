"""Implements online group DRO: exponentiated gradient ascent on the domains' losses (Sagawa et al., 2020)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import exponentiated_step, fall_below_largest, first_state, log_weights, read_signals
from mixjax.rules.states import AverageLossState
from mixjax.types import WeightRule

__all__ = ["group_dro"]


def group_dro(
    step_size: ArrayLike = 0.01,
    *,
    adjustment: ArrayLike = 0.0,
    decay: ArrayLike = 0.0,
    max_log_step: ArrayLike = 5.0,
) -> WeightRule:
    r"""Makes loss weights climb towards the domain of largest loss, one exponentiated gradient step at a time.

    .. math:: \bar L_d \leftarrow \alpha \bar L_d + (1 - \alpha) L_d, \qquad
              c_d \leftarrow c_d \exp(\eta (\bar L_d + A_d)) \,/\, Z

    ``L`` is ``losses``, ``alpha`` is ``decay``, ``eta`` is ``step_size``, ``A`` is ``adjustment``. ``c`` starts at the
    prior and ``L̄`` at the first loss. ``Z`` keeps the total weight of the rows seen. So a domain that is absent from a
    batch keeps its weight exactly, and does not sink as a domain of loss zero would.

    To keep weights from vanishing, use ``floor(group_dro(...), fraction)``, which mixes in the prior and leaves the
    recursion alone.

    Args:
        step_size: non-negative scalar, in 1 / loss.
        adjustment: scalar or ``[D]``, in units of the loss, any sign. The paper's generalisation adjustment is
            ``C / jnp.sqrt(n)``, where ``n`` is the number of training examples of each domain. It raises the weights of
            small domains. The adjustment is in no loss that is reported. A scalar changes nothing.
        decay: scalar in [0, 1], the weight of the old average. 0 takes the last loss alone, as algorithm 1 does.
        max_log_step: positive scalar, a bound on how far one step moves the logs of two weights apart.

    Signals:
        losses: mean losses ``[D]``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.AverageLossState`. Rows not seen keep
        their ``c_d``.

    Raises:
        ValueError: ``step_size`` is negative, ``adjustment`` is not finite or does not fit the prior's shape, ``decay``
            is outside [0, 1], or ``max_log_step`` is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.group_dro(step_size=jnp.log(3.0))
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 2.0])).weights.tolist()
        [0.25, 0.75]

    References:
        Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts" (ICLR 2020),
        algorithm 1 and section 3.3; paper 004, section 5. Deviations: ``c`` starts at the prior, not at ``1 / D``; all
        domains of the batch move, not one drawn at random; exponents are taken relative to the largest, which ``Z``
        cancels, and clipped at ``max_log_step`` below it; ``log_w`` is kept within ±80, from where a weight can return.
    """
    check_range("step_size", step_size, 0.0)
    check_range("adjustment", adjustment, -jnp.inf)
    check_range("decay", decay, 0.0, 1.0)
    check_positive("max_log_step", max_log_step)
    adjustment = jnp.asarray(adjustment, jnp.float32)

    def init(prior):
        prior = as_simplex("prior", prior)
        if adjustment.shape not in ((), prior.shape):
            raise ValueError(f"adjustment must be a scalar or have shape {prior.shape}, got {adjustment.shape}.")
        zeros, seen = jnp.zeros_like(prior), jnp.zeros(prior.shape, bool)
        return first_state(AverageLossState, prior, log_w=zeros, losses=zeros, seen=seen)

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        # The first loss of a domain is its average, because there is no old one to weigh.
        keep = jnp.where(state.seen, jnp.asarray(decay, jnp.float32), 0.0)
        average = jnp.where(now, keep * state.losses + (1.0 - keep) * losses, state.losses)

        # To subtract the fall is to add the step, up to what Z cancels, and cannot overflow.
        fall = fall_below_largest(average + adjustment, now, step_size, max_log_step)
        log_scores = log_weights(state) - fall
        return exponentiated_step(state, counts, log_scores, now, losses=average, seen=state.seen | now)

    return WeightRule(init, update)
