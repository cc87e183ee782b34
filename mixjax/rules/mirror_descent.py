"""Data mixing: descend a validation loss by its hypergradient, on the simplex (papers 001 and 002)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import HUGE, if_news, log_ratio, read_signals, share, total_of
from mixjax.rules.wrappers import WrapperState
from mixjax.types import WeightRule


class MirrorDescentState(NamedTuple):
    """State of :func:`mirror_descent`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of ``weights / prior``.
        norm: float32 scalar, root of the sum of squares of all centred hypergradients' largest entries.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    norm: jax.Array


class ProjectedGradientState(NamedTuple):
    """State of :func:`projected_gradient`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        norm: float32 scalar, root of the sum of squares of all centred hypergradients' Euclidean norms.
    """

    weights: jax.Array
    prior: jax.Array
    norm: jax.Array


def mirror_descent(step_size: ArrayLike = 1.0, *, adaptive: bool = True, max_log_step: ArrayLike = 5.0) -> WeightRule:
    r"""Loss weights that descend the hypergradient by exponentiated gradient steps, by default of their own scale.

    .. math:: c_d \leftarrow c_d \exp(-\alpha_r (g_d - \bar g)) \,/\, Z, \qquad
              \alpha_r = \eta \sqrt{\log D} \,\Big/ \sqrt{\textstyle\sum_{s \le r} \max_d (g_{s,d} - \bar g_s)^2}

    ``g`` is ``hypergrads``, ``ḡ`` its mean over the rows seen, ``eta`` the ``step_size``, ``r`` the update, ``D`` the
    number of domains of positive prior. Rescaling the validation loss leaves the weights as they are: with T, the
    learning rate or the loss changed, ``step_size`` need not be tuned again. ``c`` starts at the prior.

    The sum has no end: one hypergradient that is far too large, from a round that all but diverged, makes all later
    steps small. Lower the learning rate or T, or take ``adaptive=False``.

    A pull to the prior is a wrapper's, :func:`kl_to_prior`; so is a floor under the weights, ``floor``.

    Args:
        step_size: non-negative scalar, without a unit where ``adaptive``, else in 1 / hypergradient and itself ``α``.
        adaptive: False for a constant ``α = step_size``.
        max_log_step: positive scalar; bound on the exponent's absolute value. Adaptive steps of ``step_size`` 1 never
            reach 5.

    Signals:
        hypergrads: dF/dc ``[D]``, up to a constant added to all rows; see :mod:`mixjax.hypergrad`.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`MirrorDescentState`. Rows not seen keep their ``c_d``, and ``ḡ``
        and the maximum are the seen ones'.

    Raises:
        ValueError: a negative ``step_size``, or a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.mirror_descent(0.5 * jnp.log(3.0) / jnp.sqrt(jnp.log(2.0)))
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), hypergrads=jnp.array([1e-4, 2e-4])).weights.tolist()
        [0.75, 0.25]

    References:
        Papers 001 and 002, whose text we do not have beyond the abstract: the rule is ours. Exponentiated gradient:
        Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear predictors" (1997). The step:
        AdaGrad-norm (Streeter and McMahan, 2010; Ward, Wu and Bottou, "AdaGrad stepsizes", ICML 2019) with the
        simplex's radius ``√log D`` and the gradient's dual norm. Deviations: exponents are clipped to
        ``±max_log_step``; ``log_w`` is kept within ±80, from where a weight can return.
    """
    check_range("step_size", step_size, 0.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        return MirrorDescentState(prior, prior, jnp.zeros_like(prior), jnp.zeros((), jnp.float32))

    def update(state, *, counts, hypergrads, **signals):
        del signals
        seen, slopes = _centred(state, counts, hypergrads)
        norm = jnp.hypot(state.norm, jnp.abs(slopes).max())
        radius = jnp.sqrt(jnp.log(jnp.sum(state.prior > 0, dtype=jnp.float32)))
        step = _scaled(slopes, step_size, radius, norm, adaptive)
        bound = jnp.asarray(max_log_step, jnp.float32)
        weights = share(state.weights, jnp.log(state.prior) + state.log_w - jnp.clip(step, -bound, bound), seen)
        log_w = jnp.where(seen, log_ratio(weights, state.prior), state.log_w)
        return if_news(counts, MirrorDescentState(weights, state.prior, log_w, norm), state)

    return WeightRule(init, update)


def projected_gradient(step_size: ArrayLike = 1.0, *, adaptive: bool = True) -> WeightRule:
    r"""Loss weights that descend the hypergradient and are projected back onto the simplex; weights can reach 0.

    .. math:: c \leftarrow \Pi_\Delta(c - \alpha_r (g - \bar g)), \qquad
              \alpha_r = \eta \sqrt{2} \,\Big/ \sqrt{\textstyle\sum_{s \le r} \lVert g_s - \bar g_s \rVert^2}

    with the symbols of :func:`mirror_descent`. A weight of 0 returns as soon as its hypergradient asks for it.

    Args:
        step_size: non-negative scalar, without a unit where ``adaptive``, else in 1 / hypergradient and itself ``α``.
        adaptive: False for a constant ``α = step_size``.

    Signals:
        hypergrads: dF/dc ``[D]``, up to a constant added to all rows.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`ProjectedGradientState`. Rows not seen keep their ``c_d``; the
        others are projected onto the simplex of their own total.

    Raises:
        ValueError: a negative ``step_size``.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.projected_gradient(0.25, adaptive=False)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), hypergrads=jnp.array([0.0, 2.0])).weights.tolist()
        [0.75, 0.25]

    References:
        As :func:`mirror_descent`, with the simplex's Euclidean diameter √2. The projection is
        ``optax.projections.projection_simplex``.
    """
    check_range("step_size", step_size, 0.0)

    def init(prior):
        prior = as_simplex("prior", prior)
        return ProjectedGradientState(prior, prior, jnp.zeros((), jnp.float32))

    def update(state, *, counts, hypergrads, **signals):
        del signals
        seen, slopes = _centred(state, counts, hypergrads)
        size = jnp.abs(slopes).max()
        length = size * jnp.linalg.norm(slopes / jnp.where(size > 0, size, 1.0))  # squares of 1e30 are no float32
        norm = jnp.hypot(state.norm, length)
        step = _scaled(slopes, step_size, jnp.sqrt(2.0), norm, adaptive)

        total = total_of(state.weights, seen)
        scale = jnp.where(total > 0, total, 1.0)
        # Only differences matter, and what lies more than 2 totals behind the best row gets 0 in any case.
        behind = jnp.minimum((step - jnp.where(seen, step, jnp.inf).min()) / scale, 2.0)
        point = jnp.where(seen, state.weights / scale - behind, -4.0)
        projected = scale * optax.projections.projection_simplex(point).astype(jnp.float32)
        weights = jnp.where(seen & (total > 0), projected, state.weights)
        return if_news(counts, ProjectedGradientState(weights, state.prior, norm), state)

    return WeightRule(init, update)


def kl_to_prior(rule: WeightRule, strength: ArrayLike) -> WeightRule:
    r"""Adds a pull to the prior to the wrapped rule's hypergradient: it then descends ``F + strength * KL(c | prior)``.

    .. math:: g_d \leftarrow g_d + \lambda \log(c_d / \pi_d)

    Args:
        rule: a rule that reads ``hypergrads``.
        strength: ``λ``, non-negative scalar, in units of the validation loss.

    Signals:
        hypergrads: dF/dc ``[D]``; the wrapped rule's.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.WrapperState`. A weight of 0 counts as
        ``exp(-80)`` times its prior.

    Raises:
        ValueError: a negative ``strength``.

    Example:
        Without hypergradients the weights go back to the prior:

        >>> import jax.numpy as jnp, mixjax
        >>> descent = mixjax.rules.mirror_descent(1.0, adaptive=False)
        >>> state = mixjax.rules.kl_to_prior(descent, 0.0).init(jnp.array([0.5, 0.5]))
        >>> push = dict(counts=jnp.array([9, 9]), hypergrads=jnp.array([0.0, 2.0]))
        >>> state = mixjax.rules.kl_to_prior(descent, 0.0).update(state, **push)
        >>> rest = dict(counts=jnp.array([9, 9]), hypergrads=jnp.zeros(2))
        >>> pulled = mixjax.rules.kl_to_prior(descent, 1.0).update(state, **rest)
        >>> state.weights.round(2).tolist(), pulled.weights.tolist()
        ([0.88, 0.12], [0.5, 0.5])
    """
    check_range("strength", strength, 0.0)

    def wrap(inner):
        return WrapperState(inner.weights, inner.prior, inner)

    def init(prior):
        return wrap(rule.init(prior))

    def update(state, *, counts, hypergrads, **signals):
        seen, slopes = read_signals(state, counts, hypergrads=hypergrads)
        slopes += jnp.asarray(strength, jnp.float32) * log_ratio(state.weights, state.prior)
        inner = rule.update(state.inner, counts=counts, hypergrads=jnp.where(seen, slopes, jnp.nan), **signals)
        return if_news(counts, wrap(inner), state)

    return WeightRule(init, update)


def _centred(state, counts, hypergrads):
    """Which rows were seen, and their hypergradients minus the mean of the rows seen; 0 in the others."""
    seen, slopes = read_signals(state, counts, hypergrads=hypergrads)
    slopes = jnp.clip(slopes, -HUGE, HUGE)
    mean = slopes.sum() / jnp.maximum(seen.sum(), 1)
    return seen, jnp.where(seen, slopes - mean, 0.0)


def _scaled(slopes, step_size, radius, norm, adaptive):
    """The step along ``slopes``: of constant rate, or ``step_size * radius / norm`` where there has been any slope."""
    step_size = jnp.minimum(jnp.asarray(step_size, jnp.float32), HUGE)  # times radius it is finite, in any order
    direction = radius * (slopes / jnp.where(norm > 0, norm, 1.0)) if adaptive else slopes
    return jnp.clip(step_size * direction, -HUGE, HUGE)
