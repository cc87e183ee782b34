"""Implements sampling by the size of the gradient (paper 003, section 3.1): resample, then reweight."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import check_range
from mixjax.rules.base import if_news, read_signals
from mixjax.rules.sampling import init_scores, read_loss_weights, remember, sampling_weights
from mixjax.types import WeightRule

__all__ = ["gradient_norm"]


def gradient_norm(*, floor: ArrayLike = 0.0) -> WeightRule:
    r"""Makes sampling weights that minimise the variance of the Horvitz-Thompson gradient estimate.

    .. math:: q_d = (1 - \delta) \frac{c_d m_d}{\sum_j c_j m_j} + \delta c_d, \qquad
              m_d^2 = E_{z \sim S_d} \|\nabla \ell(\theta, z)\|^2

    ``c`` is ``loss_weights``, ``m`` is ``grad_norms``, and ``delta`` is ``floor``. A draw takes domain ``d`` with
    probability ``q_d``, then one of the domain's examples uniformly, and multiplies that example's gradient by
    ``c_d / q_d``. The mean of the draw is the gradient of ``L_c`` for any such ``q``, and the trace of its covariance
    is ``sum_d c_d² m_d² / q_d - ‖∇L_c‖²``. With ``delta = 0`` the trace is ``(sum_d c_d m_d)² - ‖∇L_c‖²``. No other
    ``q`` has a smaller one. Where every domain is one example this is the paper's RR, which draws term ``i`` with
    probability proportional to ``‖∇ℓ_i‖``.

    Under the stratified estimator, whose counts do not vary, only the gradient's spread within a domain matters, and
    :func:`variance_aware` is best. :func:`mixjax.grad_norms.by_domain` measures the signal.

    Args:
        floor: scalar in [0, 1], the share of the draws that follows ``c`` itself, known as the defensive mixture of
            importance sampling. Once every row has been seen, ``floor`` bounds ``c_d / q_d`` by ``1 / floor``. So a
            domain whose gradient grows after it was measured does no harm. The loss divides by the mixed ``q``, so
            the estimate stays unbiased.

    Signals:
        grad_norms: ``m``, ``[D]``, the root mean square of the per-example gradient norms. A row with a negative one
            counts as unseen.
        loss_weights: ``c``, ``[D]`` on the simplex. It is optional, the prior by default. The newest is used in all
            rows, also in rows whose ``m`` is old.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.ScoreState`. ``q_d > 0`` wherever
        ``c_d > 0``, if only by the smallest normal float. Norms that are all zero give ``q = c``. A row never seen
        keeps its prior share and takes no part in the mixture. A row not seen this time keeps its last ``m``.

    Raises:
        ValueError: ``floor`` is outside [0, 1].

    Example:
        The two terms of the paper's section 2, with shares 0.4 and 0.6 and slopes 1 and 5:

        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.gradient_norm()
        >>> state = rule.init(jnp.array([0.4, 0.6]))
        >>> state = rule.update(state, counts=jnp.array([1, 1]), grad_norms=jnp.array([1.0, 5.0]))
        >>> state.weights.tolist(), (state.prior / state.weights).tolist()     # q, and the weights c / q
        ([0.117647, 0.882353], [3.4, 0.68])

    References:
        Paper 003, eq. 3.5, remark 3.1 and eq. 3.45; Owen and Zhou, "Safe and effective importance sampling" (JASA
        2000), for the defensive mixture. Deviations: domains in place of single terms, hence the root mean square;
        any ``c`` in place of ``1 / n``; gradients that are all zero, where eq. 3.5 is 0 / 0, give ``q = c``.
    """
    check_range("floor", floor, 0.0, 1.0)

    def init(prior):
        return init_scores(prior, score=0.0)

    def update(state, *, counts, grad_norms, loss_weights=None, **signals):
        del signals
        now, m = read_signals(state, counts, grad_norms=grad_norms)
        known, c = read_loss_weights(state, state.prior if loss_weights is None else loss_weights)
        # A norm below zero was measured wrongly and says nothing.
        now &= known & (m >= 0)
        seen, m = remember(state, m, now)
        q = sampling_weights(state.prior, c, m, seen, jnp.asarray(floor, jnp.float32))
        new = state._replace(weights=q, scores=m, loss_weights=c, seen=seen)
        return if_news(counts, new, state, now)

    return WeightRule(init, update)
