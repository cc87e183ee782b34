"""Resampling by the size of the gradient (paper 003, section 3.1): resample, then reweight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_range
from mixjax.rules.base import if_news, masked_softmax, read_signals, share
from mixjax.types import WeightRule


class GradientNormState(NamedTuple):
    """State of :func:`gradient_norm`.

    Attributes:
        weights: float32 ``[D]`` on the simplex: the sampling weights.
        prior: float32 ``[D]``.
        grad_norms: float32 ``[D]``, each domain's last seen gradient norm.
        loss_weights: float32 ``[D]``, the last loss weights.
        seen: bool ``[D]``, whether there has been a ``grad_norms``.
    """

    weights: jax.Array
    prior: jax.Array
    grad_norms: jax.Array
    loss_weights: jax.Array
    seen: jax.Array


def gradient_norm(*, defensive: ArrayLike = 0.0) -> WeightRule:
    r"""Sampling weights that minimise the variance of the Horvitz-Thompson gradient estimate.

    .. math:: q_d = (1 - \delta) \frac{c_d m_d}{\sum_j c_j m_j} + \delta c_d, \qquad
              m_d^2 = E_{z \sim S_d} \|\nabla \ell(\theta, z)\|^2

    ``c`` is ``loss_weights``, ``m`` is ``grad_norms``, ``delta`` is ``defensive``. A draw takes domain ``d`` with
    probability ``q_d``, one of its examples uniformly, and its gradient times ``c_d / q_d``: the mean is the gradient
    of ``L_c`` for any such ``q``, and the trace of the covariance is ``sum_d c_d² m_d² / q_d - ‖∇L_c‖²``. With
    ``delta = 0`` that is ``(sum_d c_d m_d)² - ‖∇L_c‖²``, the least there is and never more than at ``q = c``. Where
    every domain is one example this is the paper's RR: draw term ``i`` with probability proportional to ``‖∇ℓ_i‖``.

    Under the stratified estimator, whose counts do not vary, it is the gradient's spread within a domain that counts
    and :func:`variance_aware` that is best. :func:`mixjax.grad_norms.by_domain` measures the signal.

    Args:
        defensive: scalar in [0, 1], the share of the draws that follows ``c`` itself. Once every row has been seen it
            bounds ``c_d / q_d`` by ``1 / defensive``, so that a domain whose gradient grows after it was measured does
            no harm. Whoever weights divides by the mixture, so the estimate stays unbiased.

    Signals:
        grad_norms: ``m``, ``[D]``, the root mean square of the per-example gradient norms; a negative one is not seen.
        loss_weights: ``c``, ``[D]`` on the simplex, optional: the prior by default. Always this step's, also in rows
            whose ``m`` is old.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`GradientNormState`. ``q_d > 0`` wherever ``c_d > 0``, if only by
        the smallest normal float; norms that are all zero give ``q = c``. A row never seen keeps its prior share and
        takes no part in the mixture; a row not seen this time keeps its last ``m``.

    Raises:
        ValueError: ``defensive`` outside [0, 1].

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
    check_range("defensive", defensive, 0.0, 1.0)
    defensive = jnp.asarray(defensive, jnp.float32)

    def init(prior):
        prior = as_simplex("prior", prior)
        return GradientNormState(prior, prior, jnp.zeros_like(prior), prior, jnp.zeros(prior.shape, bool))

    def update(state, *, counts, grad_norms, loss_weights=None, **signals):
        del signals
        now, m = read_signals(state, counts, grad_norms=grad_norms)
        c = state.prior if loss_weights is None else loss_weights
        now &= m >= 0
        known, c = read_signals(state, jnp.ones_like(state.prior), loss_weights=c)
        c, now = jnp.where(known, c, state.loss_weights), now & known
        m, seen = jnp.where(now, m, state.grad_norms), state.seen | now
        scores = jnp.where(seen, jnp.log(c) + jnp.log(m), -jnp.inf)
        scores = jnp.where(jnp.isneginf(scores.max()), jnp.log(c), scores)
        mixture = (1.0 - defensive) * masked_softmax(scores, seen) + defensive * masked_softmax(jnp.log(c), seen)
        q = share(state.prior, jnp.log(mixture), seen)
        fallback = jnp.where(c.sum() > 0, c, state.prior)  # for loss weights that are zero in all rows seen
        q = jnp.where(jnp.any(seen) & ~jnp.any(seen & (c > 0)), fallback / fallback.sum(), q)
        q = jnp.maximum(q, jnp.where(c > 0, jnp.finfo(jnp.float32).tiny, 0.0))
        return if_news(counts, GradientNormState(q, state.prior, m, c, seen), state)

    return WeightRule(init, update)
