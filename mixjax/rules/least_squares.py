"""Implements generalised least squares and its feasible forms (paper 000, section 3.1)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import first_state, if_news, masked_softmax, read_signals, share
from mixjax.rules.states import ConstantState, LastLossState, RawWeightState
from mixjax.types import WeightRule

__all__ = ["fgls", "gls", "one_shot_fgls"]

_MIN_LOSS = 1e-12
# The normal numbers of float32. A value outside them would become 0 or infinite in the cast.
_SMALLEST = float(jnp.finfo(jnp.float32).tiny)
_LARGEST = float(jnp.finfo(jnp.float32).max)


def gls(variances: ArrayLike) -> WeightRule:
    r"""Keeps Aitken's weights for known noise variances, ``c_d ∝ prior_d / variances_d``.

    Args:
        variances: label-noise variance of each domain, ``[D]`` or a scalar, positive, in squared units of the label.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.ConstantState`. Signals: none.

    Raises:
        ValueError: a variance is not a positive normal number of float32, or the shape does not match the prior's.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.rules.gls([1.0, 20.0]).init(jnp.array([0.5, 0.5])).weights.tolist()
        [0.952, 0.048]

    References:
        Paper 000 (Salmani et al., "Sampling and Loss Weights in Multi-Domain Training"), theorem 3.1 and
        corollary 3.2, eq. 9. The corollary is optimal where the prior is proportional to the domains' sizes. In
        general Aitken's weighting of the examples is ``c_d`` proportional to ``|S_d| / sigma_d²``, since eq. 2 takes a
        mean over each domain. To get it, pass the sizes as the prior.
    """
    check_positive("variances", variances)
    check_range("variances", variances, _SMALLEST, _LARGEST)
    variances = jnp.asarray(variances, jnp.float32)

    def init(prior):
        prior = as_simplex("prior", prior)
        if variances.shape not in ((), prior.shape):
            raise ValueError(f"variances must be a scalar or have shape {prior.shape}, got {variances.shape}.")
        # The quotient is taken in logarithms, because with extreme variances it leaves float32.
        log_scores = jnp.log(prior) - jnp.log(variances)
        return first_state(ConstantState, prior, weights=masked_softmax(log_scores, prior > 0))

    def update(state, *, counts, **signals):
        del counts, signals
        return state

    return WeightRule(init, update)


def fgls(*, min_loss: ArrayLike = _MIN_LOSS) -> WeightRule:
    r"""Makes the weights of feasible GLS: mean squared residuals replace the known variances of :func:`gls`.

    .. math:: c_d \propto \pi_d / \hat\sigma_d^2, \qquad
              \hat\sigma_d^2 = \frac{1}{|S_d|} \sum_{(x, y) \in S_d} (\hat\theta^\top x - y)^2

    ``pi`` is the ``prior`` and ``sigma_d^2`` is ``losses[d]``, the mean squared residual of an earlier fit.

    - Two-stage FGLS updates this rule once, after an unweighted fit, and uses the weights for a second fit.
    - Iterated FGLS updates this rule after every fit; ``freeze_after(fgls(), k)`` stops after ``k`` rounds.

    A model with more parameters than points fits the points exactly. Their residuals vanish, and the weights say
    nothing. This is the paper's reason for :func:`one_shot_fgls`.

    Args:
        min_loss: positive scalar; smaller losses count as this, so that ``1 / loss`` stays finite.

    Signals:
        losses: mean squared residuals ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LastLossState`.

    Raises:
        ValueError: ``min_loss`` is not a positive normal number of float32.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.fgls()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0])).weights.tolist()
        [0.75, 0.25]

    References:
        Paper 000, section 3.1, eq. 10. Deviation: losses below ``min_loss`` count as that.
    """
    _check_min_loss(min_loss)

    def init(prior):
        prior = as_simplex("prior", prior)
        losses, seen = jnp.ones_like(prior), jnp.zeros(prior.shape, bool)
        return first_state(LastLossState, prior, losses=losses, seen=seen)

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        losses, seen = jnp.where(now, losses, state.losses), state.seen | now
        positive = jnp.maximum(losses, jnp.asarray(min_loss, jnp.float32))
        weights = share(state.prior, jnp.log(state.prior) - jnp.log(positive), seen)
        new = state._replace(weights=weights, losses=losses, seen=seen)
        return if_news(counts, new, state, now)

    return WeightRule(init, update)


def one_shot_fgls(gamma: ArrayLike = 1.0, *, min_loss: ArrayLike = _MIN_LOSS) -> WeightRule:
    r"""Makes the weights of one-shot FGLS: the inverse held-out loss, smoothed while the model trains.

    .. math:: w_d \leftarrow (1 - \gamma) w_d + \gamma / L_d, \qquad c_d \propto \pi_d w_d

    ``L_d`` is ``losses[d]``, the mean squared error on held-out points, and ``pi`` is the ``prior``. The raw ``w``
    starts at 1 and is not normalised. So with ``gamma < 1`` the first updates mix 1 with ``1 / loss``, as the paper's
    line does. The first update should wait until the losses say something about the noise: see ``start`` of
    :func:`mixjax.rules.every`.

    Args:
        gamma: scalar in [0, 1]; 1 forgets the past.
        min_loss: positive scalar; smaller losses count as this.

    Signals:
        losses: mean held-out losses ``[D]``, non-negative.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.RawWeightState`. A row not seen keeps
        its raw ``w``. A row never seen keeps its prior share, since its ``w = 1`` is not on the scale of ``1 / loss``.

    Raises:
        ValueError: ``gamma`` is outside [0, 1], or ``min_loss`` is not a positive normal number of float32.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.one_shot_fgls(gamma=0.5)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> state = rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([0.5, 1.0]))
        >>> jnp.exp(state.log_w).tolist(), state.weights.tolist()
        ([1.5, 1.0], [0.6, 0.4])

    References:
        Paper 000, algorithm 1, line 11 (the text calls it line 16). Deviations: losses below ``min_loss`` count as
        that; domains never seen keep their prior share.
    """
    check_range("gamma", gamma, 0.0, 1.0)
    _check_min_loss(min_loss)

    def init(prior):
        prior = as_simplex("prior", prior)
        log_w, seen = jnp.zeros_like(prior), jnp.zeros(prior.shape, bool)
        return first_state(RawWeightState, prior, log_w=log_w, seen=seen)

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        rate = jnp.asarray(gamma, jnp.float32)
        log_losses = jnp.log(jnp.maximum(losses, jnp.asarray(min_loss, jnp.float32)))
        # This is line 11 in logarithms, because 1 / min_loss and products of it with the prior leave float32. A gamma
        # of 0 or 1 gives log(0) = -inf, which logaddexp takes as a term of zero.
        moved = jnp.logaddexp(jnp.log1p(-rate) + state.log_w, jnp.log(rate) - log_losses)
        log_w, seen = jnp.where(now, moved, state.log_w), state.seen | now
        weights = share(state.prior, jnp.log(state.prior) + log_w, seen)
        new = state._replace(weights=weights, log_w=log_w, seen=seen)
        return if_news(counts, new, state, now)

    return WeightRule(init, update)


def _check_min_loss(min_loss):
    """Raises a ValueError unless float32 holds both ``min_loss`` and its reciprocal."""
    check_positive("min_loss", min_loss)
    check_range("min_loss", min_loss, _SMALLEST, _LARGEST)
