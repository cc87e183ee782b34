"""Distributionally robust weights in closed form (paper 004, sections 2, 3.1 and 11)."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range, is_concrete
from mixjax.rules.base import if_news, masked_softmax, read_signals, share
from mixjax.types import WeightRule

Divergence = Literal["kl", "chi2", "cvar"]
_DIVERGENCES = ("kl", "chi2", "cvar")
_MAX_NEWTON_STEPS = 128  # each step cuts (excess times slope) by four: about 35 steps at worst for n = 1e6 in float32


class DROState(NamedTuple):
    """State of :func:`dro`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        losses: float32 ``[D]``, each domain's last seen loss.
        seen: bool ``[D]``, whether there has been one.
    """

    weights: jax.Array
    prior: jax.Array
    losses: jax.Array
    seen: jax.Array


def dro(beta: ArrayLike = 1.0, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0) -> WeightRule:
    r"""The weights that a distributionally robust loss puts on the losses.

    .. math:: c = \arg\max_{q \in \Delta} \; \sum_d q_d L_d - \frac{1}{\beta} D_\phi(q \| \pi), \qquad
              D_\phi(q \| \pi) = \sum_d \pi_d \, \phi(q_d / \pi_d)

    ``L`` is ``losses``, ``pi`` the ``prior``. With ``[x]_+ = max(x, 0)``:

    - ``"kl"``, ``phi(z) = z log z - z + 1``: ``c_d ∝ pi_d exp(beta L_d)``;
    - ``"chi2"`` (Pearson), ``phi(z) = (z - 1)²``: ``c_d = pi_d [1 + beta (L_d + lambda) / 2]_+``, where ``lambda``
      makes the sum 1. Easy domains get exactly zero;
    - ``"cvar"``, ``phi(z) = 0`` up to ``1 + beta`` and infinite above: no domain gets more than ``1 + beta`` times its
      prior. The objective is the mean over the worst fraction ``level = 1 / (1 + beta)``, so ask for a level by
      ``beta = 1 / level - 1``. Domains of equal loss share by their prior.

    For each of them ``beta = 0`` is the prior and ``beta = inf`` the prior on the domains of largest loss. Where every
    example is a domain this is example-level DRO: ``"kl"`` and ``"chi2"`` cost O(D), ``"cvar"`` sorts, O(D log D).

    Args:
        beta: non-negative scalar, in 1 / loss (a number for ``"cvar"``); ``inf`` is allowed.
        divergence: the name of ``phi``.
        scale: positive scalar that multiplies ``phi``, which is the same as dividing ``beta`` (of ``"cvar"``, whose
            ``phi`` is 0 or infinite, it changes nothing). The paper leaves it open
            for Pearson's divergence: half of the literature has ``phi(z) = (z - 1)² / 2``, which is ``scale=0.5``.

    Signals:
        losses: mean losses ``[D]``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`DROState`. A row not seen keeps its last loss; a row never seen
        keeps its prior share.

    Raises:
        ValueError: a negative or NaN ``beta``, a ``scale`` that is not positive and finite, an unknown ``divergence``.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.dro(beta=jnp.log(3.0))
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 2.0])).weights.tolist()
        [0.25, 0.75]

    References:
        Paper 004 (Fidon et al., "Distributionally Robust Deep Learning using Hardness Weighted Sampling"), eq. 3, 12
        and 34, which have a uniform prior; CVaR is Rockafellar and Uryasev (2000), whose ``phi`` lies outside the
        paper's definition 2.1.
    """
    _check(beta, divergence, scale)

    def init(prior):
        prior = as_simplex("prior", prior)
        return DROState(prior, prior, jnp.zeros_like(prior), jnp.zeros(prior.shape, bool))

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        losses, seen = jnp.where(now, losses, state.losses), state.seen | now
        rate, size = jnp.asarray(beta, jnp.float32), jnp.asarray(scale, jnp.float32)
        log_ratios = _log_ratios(losses, jnp.where(seen, state.prior, 0.0), rate, divergence, size)
        weights = share(state.prior, jnp.log(state.prior) + log_ratios, seen)
        weights = jnp.where(rate > 0, weights, state.prior)
        return if_news(counts, DROState(weights, state.prior, losses, seen), state)

    return WeightRule(init, update)


def robust_weights(
    losses: ArrayLike, prior: ArrayLike, beta: ArrayLike, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0
) -> jax.Array:
    """The maximiser ``p̄`` of :func:`robust_loss`: what :func:`dro` weights with, as a function of all the losses.

    Args:
        losses: ``L``, ``[n]``, finite; what it holds where the prior is zero does not matter.
        prior: ``pi``, ``[n]``, non-negative, not all zero; normalised here. Zero stays zero: the way to pad.
        beta: non-negative scalar, in 1 / loss; ``inf`` is allowed.
        divergence: as in :func:`dro`.
        scale: as in :func:`dro`.

    Returns:
        float32 ``[n]`` on the simplex, or float64 for float64 losses; no gradient flows through it.

    Raises:
        ValueError: shapes that differ or are not ``[n]``; what :func:`dro` says of the other arguments.

    Example:
        >>> from mixjax.rules import robust_weights
        >>> robust_weights([0.0, 1.0, 2.0], [1, 1, 1], 1.0, "chi2").tolist()   # (1 + (L - 1) / 2) / 3
        [0.1667, 0.3333, 0.5]

    References:
        Paper 004, eq. 9, 12 and 34.
    """
    losses, prior, beta, scale = _arrays(losses, prior, beta, divergence, scale)
    return _weights(losses, prior, beta, divergence, scale)


def robust_loss(
    losses: ArrayLike, prior: ArrayLike, beta: ArrayLike, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0
) -> jax.Array:
    r"""The distributionally robust loss, whose gradient is the weighted mean of the losses' gradients.

    .. math:: R(L) = \max_{q \in \Delta} \; \sum_i q_i L_i - \frac{1}{\beta} \sum_i \pi_i \phi(q_i / \pi_i), \qquad
              \nabla R(L) = \bar p(L)

    The maximum is attained at ``p̄`` (:func:`robust_weights`), and by the envelope theorem its first derivative is that
    at fixed ``p̄``. Second derivatives are not available: they come out as zero.

    Args:
        losses: ``L``, ``[n]``, finite; what it holds where the prior is zero does not matter.
        prior: ``pi``, ``[n]``, non-negative, not all zero; normalised here.
        beta: non-negative scalar, in 1 / loss; 0 gives the mean under the prior, ``inf`` the largest loss.
        divergence: as in :func:`dro`; ``"cvar"`` has no penalty, ``R`` is the mean over the worst ``1 / (1 + beta)``.
        scale: as in :func:`dro`.

    Returns:
        float32 scalar, or float64 for float64 losses.

    Raises:
        ValueError: as :func:`robust_weights`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax.rules import robust_loss
        >>> losses, prior = jnp.log(jnp.array([1.0, 3.0])), jnp.array([0.5, 0.5])
        >>> float(robust_loss(losses, prior, 1.0)), float(jnp.log(2.0))     # log of the mean of exp(L)
        (0.693, 0.693)
        >>> jax.grad(robust_loss)(losses, prior, 1.0).tolist()
        [0.25, 0.75]

    References:
        Paper 004, eq. 3 and lemma 3.2.
    """
    losses, prior, beta, scale = _arrays(losses, prior, beta, divergence, scale)
    weights = _weights(losses, prior, beta, divergence, scale)
    value = jnp.sum(weights * jnp.where(prior > 0, losses, 0.0))
    if divergence == "cvar":
        return value
    change, safe = weights - prior, jnp.where(prior > 0, prior, 1.0)
    relative = change / safe  # z - 1
    if divergence == "kl":
        ratio = jnp.where(weights > 0, weights / safe, 1.0)
        logs = jnp.where(ratio > 0.5, jnp.log1p(jnp.maximum(relative, -0.5)), jnp.log(ratio))
        penalty = jnp.sum(weights * logs - change)
    else:
        penalty = jnp.sum(change * relative)
    return value - jnp.where(beta > 0, scale * penalty / jnp.where(beta > 0, beta, 1.0), 0.0)


def _check(beta, divergence, scale):
    if is_concrete(beta) and not bool(np.all(np.asarray(beta) >= 0)):
        raise ValueError(f"beta must be in [0, inf], got {beta}.")
    if divergence not in _DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(map(repr, _DIVERGENCES))}, got {divergence!r}.")
    check_positive("scale", scale)
    check_range("scale", scale, 0.0)


def _arrays(losses, prior, beta, divergence, scale):
    """All numeric arguments in float32, or the losses' type if that is wider; the prior normalised."""
    _check(beta, divergence, scale)
    losses, prior = jnp.asarray(losses), jnp.asarray(prior)
    losses = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    if losses.ndim != 1 or prior.shape != losses.shape:
        raise ValueError(
            f"losses and prior must have one entry for each example, got shapes {losses.shape} and {prior.shape}."
        )
    as_simplex("prior", prior)  # raises
    prior, beta, scale = (jnp.asarray(x, losses.dtype) for x in (prior, beta, scale))
    return losses, prior / prior.sum(), beta, scale


def _weights(losses, prior, beta, divergence, scale):
    losses = jax.lax.stop_gradient(losses)
    weights = masked_softmax(jnp.log(prior) + _log_ratios(losses, prior, beta, divergence, scale), prior > 0)
    return jax.lax.stop_gradient(jnp.where(beta > 0, weights, prior))


def _log_ratios(losses, prior, beta, divergence, scale):
    """``log(p̄ / prior)`` up to a constant, -inf where ``p̄`` is zero; rows of zero prior are without meaning.

    Everything is written in ``gaps = max(L) - L``, so that no ``beta`` and no loss overflows, and a gap of zero stays
    zero at ``beta = inf``.
    """
    there = prior > 0
    prior = prior / jnp.maximum(prior.sum(), jnp.finfo(prior.dtype).tiny)
    losses = jnp.where(there, losses, -jnp.inf)
    gaps = jnp.minimum(losses.max() - losses, jnp.finfo(losses.dtype).max)
    gaps = jnp.where(there, gaps, 0.0)
    if divergence == "cvar":
        return _cvar(gaps, prior, 1.0 / (1.0 + beta))
    rate = beta / scale if divergence == "kl" else 0.5 * beta / scale
    scaled = jnp.where(gaps > 0, rate * gaps, 0.0)
    return -scaled if divergence == "kl" else jnp.log(_pearson(scaled, prior))


@jax.jit  # outside jit, a while_loop would compile anew at each call
def _pearson(gaps, prior):
    """Eq. 34's ``z = [top - gaps]_+`` of prior-mean 1, by Newton on ``top`` (Michelot): O(n) a step, no sort.

    The mean is convex and piecewise linear in ``top``, so Newton from above (the mean as if no entry were cut) falls
    monotonically, and stops when the support, hence ``top``, stops changing. Since ``top`` is at most one over the
    prior of the hardest entries, larger gaps are cut for certain and may be clipped there.
    """
    hardest = jnp.sum(jnp.where(gaps > 0, 0.0, prior))
    gaps = jnp.minimum(gaps, 1.0 / jnp.maximum(hardest, jnp.finfo(prior.dtype).tiny))

    def newton(top):
        kept = jnp.where(gaps < top, prior, 0.0)
        return (1.0 + jnp.sum(kept * gaps)) / kept.sum()

    def falls(carry):
        top, new, step = carry
        return (new < top) & (step < _MAX_NEWTON_STEPS)

    def body(carry):
        _, top, step = carry
        return top, newton(top), step + 1

    infinite = jnp.full((), jnp.inf, gaps.dtype)
    _, top, _ = jax.lax.while_loop(falls, body, (infinite, newton(infinite), 0))
    return jnp.maximum(top - gaps, 0.0)


def _cvar(gaps, prior, level):
    """Log of 1 above the quantile, of what fills up the level at it, and of 0 below."""
    order = jnp.argsort(gaps)
    index = jnp.sum(jnp.cumsum(prior[order]) < level)
    cut = gaps[order][jnp.minimum(index, gaps.size - 1)]
    above, at = (jnp.sum(jnp.where(mask, prior, 0.0)) for mask in (gaps < cut, gaps == cut))
    filled = jnp.clip((level - above) / jnp.maximum(at, jnp.finfo(prior.dtype).tiny), 0.0, 1.0)
    filled = jnp.where(cut > 0, filled, 1.0)  # nothing above: the level's mass is all here
    return jnp.where(gaps < cut, 0.0, jnp.where(gaps == cut, jnp.log(filled), -jnp.inf))
