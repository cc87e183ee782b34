"""Implements data mixing: loss weights descend a validation loss by its hypergradient (papers 001 and 002)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.meshes import spec_of, with_auto_axes
from mixjax.rules.base import (
    HUGE,
    bounded,
    exponentiated_step,
    first_state,
    if_news,
    log_weights,
    read_signals,
    total_of,
)
from mixjax.rules.states import NormLogWeightState, NormState
from mixjax.types import WeightRule

__all__ = ["mirror_descent", "projected_gradient"]


def mirror_descent(step_size: ArrayLike = 1.0, *, adaptive: bool = True, max_log_step: ArrayLike = 5.0) -> WeightRule:
    r"""Makes loss weights descend a validation loss by exponentiated gradient steps of an adaptive size.

    .. math:: c_d \leftarrow c_d \exp(-\alpha_r (g_d - \bar g)) \,/\, Z, \qquad
              \alpha_r = \eta \sqrt{\log D} \,\Big/ \sqrt{\textstyle\sum_{s \le r} \max_d (g_{s,d} - \bar g_s)^2}

    ``g`` is ``hypergrads``, ``ḡ`` is its mean over the rows seen, ``eta`` is ``step_size``. ``r`` counts the updates,
    ``s`` runs over those so far, ``Z`` keeps the total of the rows seen, and ``D`` counts only the domains of positive
    prior. Rescaling the validation loss leaves the weights as they are. So ``step_size`` need not be tuned again when
    the number of training steps behind a hypergradient (``T`` in :mod:`mixjax.hypergrad`), the learning rate or the
    loss changes. ``c`` starts at the prior.

    One hypergradient that is far too large, from training that all but diverged, makes all later steps small. If that
    happens, lower the learning rate or ``T``, or take ``adaptive=False``.

    Two wrappers hold the weights near the prior: :func:`mixjax.rules.kl_to_prior` pulls them back to it, and
    :func:`mixjax.rules.floor` mixes it in.

    Args:
        step_size: non-negative scalar; ``eta``, without a unit, if ``adaptive``, else ``α``, in 1 / hypergradient.
        adaptive: False for a constant ``α = step_size``.
        max_log_step: positive scalar; bound on the exponent's absolute value. Adaptive exponents are at most
            ``step_size * sqrt(log D)``, so with ``step_size`` 1 they never reach 5.

    Signals:
        hypergrads: dF/dc ``[D]``, up to a constant added to all rows; see :mod:`mixjax.hypergrad`.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.NormLogWeightState`. Rows not seen
        keep their ``c_d``; ``ḡ`` and the maximum are over the rows seen.

    Raises:
        ValueError: a ``step_size`` that is negative or not finite, or a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> step_size = 0.5 * jnp.log(3.0) / jnp.sqrt(jnp.log(2.0))      # the first exponents are ±log(3) / 2
        >>> rule = mixjax.rules.mirror_descent(step_size)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), hypergrads=jnp.array([1e-4, 2e-4])).weights.tolist()
        [0.75, 0.25]

    References:
        Papers 001 and 002. Only their abstract was available, so the formulas here are not taken from them.
        Exponentiated gradient: Kivinen and Warmuth, "Exponentiated gradient versus gradient descent for linear
        predictors" (1997). The step: AdaGrad-norm (Streeter and McMahan, 2010; Ward, Wu and Bottou, "AdaGrad
        stepsizes", ICML 2019) with the simplex's radius ``√log D`` and the gradient's dual norm. Deviations: exponents
        are clipped to ``±max_log_step``; ``log_w`` is kept within ±80, from where a weight can return.
    """
    check_range("step_size", step_size, 0.0)
    check_positive("max_log_step", max_log_step)

    def init(prior):
        prior = as_simplex("prior", prior)
        zero = jnp.zeros((), jnp.float32)
        return first_state(NormLogWeightState, prior, log_w=jnp.zeros_like(prior), norm=zero, step_size=zero)

    def update(state, *, counts, hypergrads, **signals):
        del signals
        seen, slopes = _centred(state, counts, hypergrads)
        # hypot keeps its digits where the squares of very small or large slopes leave float32.
        norm = jnp.hypot(state.norm, jnp.abs(slopes).max())
        radius = jnp.sqrt(jnp.log(jnp.sum(state.prior > 0, dtype=jnp.float32)))
        direction = radius * (slopes / _as_divisor(norm)) if adaptive else slopes
        step = bounded(_times_step_size(direction, step_size), jnp.asarray(max_log_step, jnp.float32))
        alpha = _times_step_size(radius / _as_divisor(norm) if adaptive else 1.0, step_size)
        return exponentiated_step(state, counts, log_weights(state) - step, seen, norm=norm, step_size=alpha)

    return WeightRule(init, update)


def projected_gradient(step_size: ArrayLike = 1.0, *, adaptive: bool = True) -> WeightRule:
    r"""Makes loss weights descend a validation loss by gradient steps projected onto the simplex: weights can reach 0.

    .. math:: c \leftarrow \Pi_\Delta(c - \alpha_r (g - \bar g)), \qquad
              \alpha_r = \eta \sqrt{2} \,\Big/ \sqrt{\textstyle\sum_{s \le r} \lVert g_s - \bar g_s \rVert^2}

    The symbols are those of :func:`mirror_descent`. A weight of 0 returns as soon as its hypergradient asks for it.

    Args:
        step_size: non-negative scalar; ``eta``, without a unit, if ``adaptive``, else ``α``, in 1 / hypergradient.
        adaptive: False for a constant ``α = step_size``.

    Signals:
        hypergrads: dF/dc ``[D]``, up to a constant added to all rows.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.NormState`. Rows not seen keep their
        ``c_d``; the others are projected onto the simplex of their own total.

    Raises:
        ValueError: a ``step_size`` that is negative or not finite.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.projected_gradient(0.25, adaptive=False)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), hypergrads=jnp.array([0.0, 2.0])).weights.tolist()
        [0.75, 0.25]

    References:
        As :func:`mirror_descent`, with the simplex's Euclidean diameter √2. The projection is that of Held, Wolfe and
        Crowder (1974).
    """
    check_range("step_size", step_size, 0.0)

    def init(prior):
        prior = as_simplex("prior", prior)
        return first_state(NormState, prior, norm=jnp.zeros((), jnp.float32))

    def update(state, *, counts, hypergrads, **signals):
        del signals
        seen, slopes = _centred(state, counts, hypergrads)
        norm = jnp.hypot(state.norm, _euclidean_norm(slopes))
        direction = jnp.sqrt(2.0) * (slopes / _as_divisor(norm)) if adaptive else slopes
        step = _times_step_size(direction, step_size)

        total = total_of(state.weights, seen)
        scale = _as_divisor(total)
        # Only differences of steps matter. The projection onto the unit simplex subtracts a threshold of at least the
        # largest entry minus 1, here at least -1. So every entry of at most -1 becomes 0, and a lag of 2 is as good as
        # any longer one.
        behind = jnp.minimum((step - jnp.where(seen, step, jnp.inf).min()) / scale, 2.0)
        # -4 gives a row not seen 0 as well; the last where puts its own weight back.
        point = jnp.where(seen, state.weights / scale - behind, -4.0)
        projected = scale * with_auto_axes(_projected_on_simplex, spec_of(point))(point)
        weights = jnp.where(seen & (total > 0), projected, state.weights)
        return if_news(counts, state._replace(weights=weights, norm=norm), state, seen)

    return WeightRule(init, update)


def _centred(state, counts, hypergrads):
    """Returns the rows seen, and their hypergradients minus the mean over these rows; 0 in the other rows."""
    seen, slopes = read_signals(state, counts, hypergrads=hypergrads)
    # Bounded first, since the sum of a few slopes near the largest float32 is infinite.
    slopes = bounded(slopes)
    mean = slopes.sum() / jnp.maximum(jnp.sum(seen, dtype=jnp.float32), 1.0)
    return seen, jnp.where(seen, slopes - mean, 0.0)


def _projected_on_simplex(point):
    """Returns ``[point - threshold]_+``, where the threshold makes the sum 1; it is the largest of ``D`` candidates."""
    ranks = jnp.arange(1, point.size + 1, dtype=point.dtype)
    thresholds = (jnp.cumsum(jnp.sort(point, descending=True)) - 1.0) / ranks
    return jnp.maximum(point - thresholds.max(), 0.0)


def _euclidean_norm(slopes):
    """Returns the Euclidean norm, by way of the largest entry, since squares of 1e30 leave float32."""
    largest = jnp.abs(slopes).max()
    return largest * jnp.linalg.norm(slopes / _as_divisor(largest))


def _as_divisor(number):
    """Returns a non-negative number, or 1 where it is 0, so that 0 / 0 becomes 0."""
    return jnp.where(number > 0, number, 1.0)


def _times_step_size(direction, step_size):
    # An infinite or huge step size would turn a direction of zero into NaN, or a small one into infinity.
    step_size = jnp.minimum(jnp.asarray(step_size, jnp.float32), HUGE)
    return bounded(step_size * direction)
