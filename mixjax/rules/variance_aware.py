"""Variance-aware sampling (paper 000, section 4)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_range
from mixjax.rules.base import if_news, read_signals, share
from mixjax.types import WeightRule


class VarianceAwareState(NamedTuple):
    """State of :func:`variance_aware`.

    Attributes:
        weights: float32 ``[D]`` on the simplex: the sampling weights.
        prior: float32 ``[D]``.
        grad_stds: float32 ``[D]``, each domain's last seen gradient standard deviation.
        loss_weights: float32 ``[D]``, the last loss weights.
        seen: bool ``[D]``, whether there has been a ``grad_stds``.
    """

    weights: jax.Array
    prior: jax.Array
    grad_stds: jax.Array
    loss_weights: jax.Array
    seen: jax.Array


def variance_aware(*, min_ratio: ArrayLike = 1e-6) -> WeightRule:
    r"""Sampling weights that minimise the variance of the stratified gradient estimate.

    .. math:: q_d \propto c_d v_d, \qquad
              v_d^2 = E_{z \sim S_d} \|\nabla \ell(\theta, z) - \nabla L_d(\theta)\|^2

    ``c`` is ``loss_weights`` (the paper's ``pi_d w_d``, normalised), ``v`` is ``grad_stds``. With ``b_d = q_d B``
    examples of domain ``d`` the estimate's variance is ``sum_d c_d² v_d² / b_d``, and this ``q`` makes it
    ``(sum_d c_d v_d)² / B``: never more than ``D`` times below that of ``b_d = B / D``. The integer counts that go with
    it are :func:`mixjax.samplers.allocate`'s.

    Args:
        min_ratio: scalar in [0, 1]; a ``v_d`` below this fraction of the largest counts as that fraction, so that a
            domain whose variance was once estimated as 0 can come back. ``c_d v_d`` all zero means ``q = c``.

    Signals:
        loss_weights: ``c``, ``[D]`` on the simplex; always this step's, also in rows whose ``v`` is old.
        grad_stds: ``v``, ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`VarianceAwareState`. ``q_d > 0`` wherever ``c_d > 0``.

    Raises:
        ValueError: ``min_ratio`` outside [0, 1].

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.variance_aware()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> c, v = jnp.array([0.5, 0.5]), jnp.array([1.0, 3.0])
        >>> rule.update(state, counts=jnp.array([9, 9]), loss_weights=c, grad_stds=v).weights.tolist()
        [0.25, 0.75]

    References:
        Paper 000, eq. 13-16 and algorithm 2. Deviation: the floor ``min_ratio``.
    """
    check_range("min_ratio", min_ratio, 0.0, 1.0)

    def init(prior):
        prior = as_simplex("prior", prior)
        return VarianceAwareState(prior, prior, jnp.ones_like(prior), prior, jnp.zeros(prior.shape, bool))

    def update(state, *, counts, loss_weights, grad_stds, **signals):
        del signals
        now, v = read_signals(state, counts, grad_stds=grad_stds)
        known, c = read_signals(state, jnp.ones_like(state.prior), loss_weights=loss_weights)
        c, now = jnp.where(known, c, state.loss_weights), now & known
        v, seen = jnp.where(now, v, state.grad_stds), state.seen | now
        largest = jnp.where(seen, v, 0.0).max()
        floored = jnp.where(largest > 0, jnp.maximum(v, jnp.asarray(min_ratio, jnp.float32) * largest), 1.0)
        scores = jnp.where(seen, jnp.log(c) + jnp.log(floored), -jnp.inf)
        scores = jnp.where(jnp.isneginf(scores.max()), jnp.log(c), scores)
        q = share(state.prior, scores, seen)
        fallback = jnp.where(c.sum() > 0, c, state.prior)  # for loss weights that are zero in all rows seen
        q = jnp.where(jnp.any(seen) & ~jnp.any(seen & (c > 0)), fallback / fallback.sum(), q)
        q = jnp.maximum(q, jnp.where(c > 0, jnp.finfo(jnp.float32).tiny, 0.0))
        return if_news(counts, VarianceAwareState(q, state.prior, v, c, seen), state)

    return WeightRule(init, update)
