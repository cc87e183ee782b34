"""Keeps weights below limits, such as those that a number of epochs and a budget set."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import check_non_negative, check_shape, is_concrete
from mixjax.meshes import spec_of, with_auto_axes
from mixjax.rules.base import if_news, own_buffers
from mixjax.rules.states import WrapperState
from mixjax.types import WeightRule

__all__ = ["cap"]

# The largest weight that stands in for weights of zero where the others cannot hold all the weight.
_LITTLE = 1e-20


def cap(rule: WeightRule, limits: ArrayLike) -> WeightRule:
    r"""Cuts the wrapped rule's weights to limits, and shares the rest in the weights' own proportions.

    .. math:: q \leftarrow \arg\min_{c \in \Delta,\; c \le u} \mathrm{KL}(c \,\|\, q), \qquad
              c_d = \min(u_d, \lambda q_d)

    ``q`` is the wrapped rule's weights, ``u`` is ``limits``, and one ``lambda >= 1`` makes the sum 1. A sort finds it,
    in O(D log D). The wrapped rule goes on from its own weights, which are not cut.

    To train on a ``budget`` of rows and see no example more than ``max_epochs`` times, take sampling weights below
    ``u = sizes * max_epochs / budget``. Where the weights move, a domain may already have been drawn more or less than
    its share, and :class:`mixjax.live.Plan` computes such limits anew in each step.

    Args:
        rule: the rule to wrap, usually for sampling weights.
        limits: ``[D]``, non-negative, of at least 1 together over the domains of positive prior. A domain of positive
            prior whose limit is 0 gets no weight. ``inf`` is no limit.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.WrapperState`. Signals: the wrapped rule's.
        Where the domains of positive weight cannot hold all of it, the other domains of positive prior get what is
        left, in proportion to the prior and up to their limits.

    Raises:
        ValueError: limits that are negative, NaN, not ``[D]``, or below 1 together.

    Example:
        No domain of 100, 30 and 10 rows is to be seen more than twice in 100 draws:

        >>> import jax.numpy as jnp, mixjax
        >>> sizes = jnp.array([100, 30, 10])
        >>> rule = mixjax.rules.cap(mixjax.rules.fixed(), sizes * 2 / 100)
        >>> rule.init(jnp.array([0.2, 0.2, 0.6])).weights.tolist()
        [0.4, 0.4, 0.2]

    References:
        With the uniform distribution as weights, this is UniMax (Chung et al., "UniMax: fairer and more effective
        language sampling for large-scale multilingual pretraining", ICLR 2023, algorithm 1).
    """
    check_non_negative("limits", limits)

    def wrap(inner):
        project = with_auto_axes(_project, spec_of(inner.weights))
        weights = project(inner.weights, jnp.asarray(limits, jnp.float32), inner.prior)
        return WrapperState(weights, inner.prior, inner)

    def init(prior):
        inner = rule.init(prior)
        check_shape("limits", limits, inner.prior.shape, "one per domain")
        if is_concrete((limits, inner.prior)):
            room = np.where(np.asarray(inner.prior) > 0, np.asarray(limits, np.float64), 0.0)
            # A sum that rounding alone keeps below 1 is one that its user meant to be 1.
            if room.sum() < 1.0 - 1e-6:
                raise ValueError(
                    f"limits must leave room for 1 over the domains of positive prior, got a sum of {room.sum():.6g}."
                )
        return own_buffers(wrap(inner))

    def update(state, *, counts, **signals):
        return if_news(counts, wrap(rule.update(state.inner, counts=counts, **signals)), state)

    return WeightRule(init, update)


def _project(q, u, prior):
    room = jnp.where(q > 0, u, 0.0).sum()
    tiny = jnp.finfo(jnp.float32).tiny
    # In proportion to the prior. No domain's stand-in may underflow, because the others may not have room for all.
    unweighted = jnp.where(q > 0, 0.0, prior)
    stand_ins = jnp.maximum(_LITTLE * (unweighted / jnp.maximum(unweighted.max(), tiny)), tiny)
    q = jnp.where((room < 1.0) & (unweighted > 0), stand_ins, q)
    positive = q > 0
    safe = jnp.where(positive, q, 1.0)
    # As lambda rises from 1, domains reach their limits in the order of u / q.
    reached = jnp.where(positive, u / safe, jnp.inf)
    order = jnp.argsort(reached)
    cut = jnp.cumsum(jnp.where(positive, jnp.minimum(u, 1.0), 0.0)[order])
    rest = jnp.cumsum(jnp.where(positive, q, 0.0)[order][::-1])[::-1]
    # Entry k is lambda if the first k domains of the order are cut; it is right if none of the others exceeds a limit.
    before = jnp.concatenate([jnp.zeros(1, jnp.float32), cut[:-1]])
    factor = (1.0 - before) / jnp.maximum(rest, tiny)
    fits = factor <= reached[order]
    # Limits of exactly 1 together cut all domains, and rounding may leave their last one a little above its limit.
    number_cut = jnp.where(fits.any(), jnp.argmax(fits), q.size)
    # By masks again, since the cumulative sums have gathered rounding errors on their way.
    is_cut = jnp.zeros(q.shape, bool).at[order].set(jnp.arange(q.size) < number_cut) & positive
    left = 1.0 - jnp.where(is_cut, u, 0.0).sum()
    free = jnp.where(positive & ~is_cut, q, 0.0)
    shares = free / jnp.maximum(free.sum(), tiny)
    projected = jnp.where(is_cut, u, jnp.minimum(jnp.maximum(left, 0.0) * shares, u))
    # Weights within the limits come back to the bit.
    return jax.lax.stop_gradient(jnp.where(jnp.all(q <= u), q, projected))
