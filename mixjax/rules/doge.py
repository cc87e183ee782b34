"""Implements DoGE: steps towards domains whose gradients agree with the target's (Fan et al., 2024)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import HUGE, exponentiated_step, first_state, log_weights, read_signals
from mixjax.rules.states import LogWeightState
from mixjax.types import WeightRule

__all__ = ["doge"]


def doge(step_size: ArrayLike = 0.1, *, max_score: ArrayLike = 5.0, max_log_step: ArrayLike = 5.0) -> WeightRule:
    r"""Makes loss weights climb towards the domains whose gradients point down the target's loss, step by step.

    .. math:: s_d = \mathrm{clip}\Bigl(\frac{-g_d}{\frac{1}{D} \sum_j n_j}, 0, s_{max}\Bigr), \qquad
              c_d \leftarrow c_d \exp(\eta s_d) / Z

    ``g`` is ``hypergrads`` in mode ``"alignment"``, ``-<∇F, ∇f_d>``. ``n`` is ``grad_norms``, here the norms of the
    domains' mean gradients. ``eta`` is ``step_size`` and ``s_max`` is ``max_score``. A domain whose gradient points up
    the target's loss scores 0, like a domain whose gradient is at a right angle to it: both lose against the others.
    ``c`` starts at the prior. DoGE's answer is the *mean of the weights over the run*.

    Args:
        step_size: non-negative scalar, DoGE's learning rate divided by its ``mu`` (0.05 in the authors' code).
        max_score: positive scalar ``s_max``, in units of the target's gradient norm.
        max_log_step: positive scalar; bound on the exponent.

    Signals:
        hypergrads: ``[D]``, of mode ``"alignment"``. The hypergradients of another mode hold the learning rate and T,
            so with them the scores and ``step_size`` mean something else.
        grad_norms: ``[D]``, non-negative; only their mean enters. DoGE takes the norms of the domains' mean gradients:
            ``jax.vmap(lambda batch: optax.tree.norm(jax.grad(loss)(params, batch)))(batch)``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LogWeightState`. Rows not seen keep
        their ``c_d``.

    Raises:
        ValueError: a negative ``step_size``, a ``max_score`` or ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.doge(jnp.log(3.0))
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> signals = dict(hypergrads=jnp.array([0.4, -0.2]), grad_norms=jnp.array([0.1, 0.3]))
        >>> rule.update(state, counts=jnp.array([9, 9]), **signals).weights.tolist()
        [0.25, 0.75]

    References:
        Fan, Pagliardini and Jaggi, "DoGE: domain reweighting with generalization estimation" (ICML 2024), algorithms 1
        and 2; the division by the mean gradient norm and the clipping are in the authors' code only. Deviations: ``c``
        starts at the prior, not at ``1 / D``; the learning rate is a constant, part of ``step_size``; exponents are
        clipped at ``max_log_step``; the authors' floor under the weights is left to :func:`mixjax.rules.floor`.
    """
    check_range("step_size", step_size, 0.0)
    check_positive("max_score", max_score)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        return first_state(LogWeightState, prior, log_w=jnp.zeros_like(prior))

    def update(state, *, counts, hypergrads, grad_norms, **signals):
        del signals
        seen, slopes, norms = read_signals(state, counts, hypergrads=hypergrads, grad_norms=grad_norms)
        # Each norm is divided before the sum, since the sum of a few norms near the largest float32 is infinite.
        mean_norm = jnp.sum(norms / jnp.maximum(jnp.sum(seen, dtype=jnp.float32), 1.0))
        scores = -slopes / jnp.maximum(mean_norm, jnp.finfo(jnp.float32).tiny)
        # A score of infinity times a step size of zero would be NaN.
        scores = jnp.clip(scores, 0.0, jnp.minimum(jnp.asarray(max_score, jnp.float32), HUGE))
        # With max_log_step = inf the product may be infinite, and the softmax of an infinite exponent is NaN.
        highest = jnp.minimum(jnp.asarray(max_log_step, jnp.float32), HUGE)
        step = jnp.minimum(jnp.asarray(step_size, jnp.float32) * scores, highest)
        return exponentiated_step(state, counts, log_weights(state) + step, seen)

    return WeightRule(init, update)
