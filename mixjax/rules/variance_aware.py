"""Implements variance-aware sampling (paper 000, section 4)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_range
from mixjax.rules.base import if_news, read_signals
from mixjax.rules.sampling import init_scores, read_loss_weights, remember, sampling_weights
from mixjax.types import WeightRule

__all__ = ["variance_aware"]


def variance_aware(*, min_ratio: ArrayLike = 1e-6) -> WeightRule:
    r"""Makes sampling weights that minimise the variance of the stratified gradient estimate.

    .. math:: q_d \propto c_d v_d, \qquad
              v_d^2 = E_{z \sim S_d} \|\nabla \ell(\theta, z) - \nabla L_d(\theta)\|^2

    ``c`` is ``loss_weights`` (the paper's ``pi_d w_d``, normalised), and ``v`` is ``grad_stds``. With ``b_d = q_d B``
    examples of domain ``d`` in a batch of ``B``, the variance of the estimate is ``sum_d c_d² v_d² / b_d``. This ``q``
    makes the variance ``(sum_d c_d v_d)² / B``. Equal counts ``b_d = B / D`` have at most ``D`` times that variance.
    :func:`mixjax.samplers.allocate` rounds ``q B`` to integer counts.

    Args:
        min_ratio: scalar in [0, 1]. A ``v_d`` below this fraction of the largest counts as that fraction, so that a
            domain whose variance was once estimated as 0 can come back. If all ``c_d v_d`` are zero, ``q`` is ``c``.

    Signals:
        loss_weights: ``c``, ``[D]`` on the simplex. The newest is used in all rows, also in rows whose ``v`` is old.
        grad_stds: ``v``, ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.ScoreState`. ``q_d > 0`` wherever
        ``c_d > 0``.

    Raises:
        ValueError: ``min_ratio`` is outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.variance_aware()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> c, v = jnp.array([0.5, 0.5]), jnp.array([1.0, 3.0])
        >>> rule.update(state, counts=jnp.array([9, 9]), loss_weights=c, grad_stds=v).weights.tolist()
        [0.25, 0.75]

    References:
        Paper 000, eq. 13-16 and algorithm 2. Deviation: small ``v_d`` are lifted by ``min_ratio``.
    """
    check_range("min_ratio", min_ratio, 0.0, 1.0)

    def init(prior):
        return init_scores(prior, score=1.0)

    def update(state, *, counts, loss_weights, grad_stds, **signals):
        del signals
        now, v = read_signals(state, counts, grad_stds=grad_stds)
        known, c = read_loss_weights(state, loss_weights)
        # A row whose new c is not finite is unseen, as with any signal that the rule reads.
        now &= known
        seen, v = remember(state, v, now)
        # The state remembers the measured values and not the lifted ones, because the largest may change.
        q = sampling_weights(state.prior, c, _lifted(v, seen, min_ratio), seen)
        new = state._replace(weights=q, scores=v, loss_weights=c, seen=seen)
        return if_news(counts, new, state, now)

    return WeightRule(init, update)


def _lifted(v, seen, min_ratio):
    """Lifts ``v`` to at least ``min_ratio`` times the largest one seen. All become 1 where the largest is zero."""
    largest = jnp.where(seen, v, 0.0).max()
    return jnp.where(largest > 0, jnp.maximum(v, jnp.asarray(min_ratio, jnp.float32) * largest), 1.0)
