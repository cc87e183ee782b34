"""Implements the loss weights of distributionally robust optimisation (DRO; paper 004, sections 2, 3.1 and 11)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex
from mixjax.rules.base import first_state, if_news, read_signals, share
from mixjax.rules.divergences import Divergence, check_arguments, log_ratios
from mixjax.rules.states import LastLossState
from mixjax.types import WeightRule

__all__ = ["dro"]


def dro(beta: ArrayLike = 1.0, divergence: Divergence = "kl", *, scale: ArrayLike = 1.0) -> WeightRule:
    r"""Makes the weights under which the loss, less a penalty for leaving the prior, is largest.

    .. math:: c = \arg\max_{q \in \Delta} \; \sum_d q_d L_d - \frac{1}{\beta} D_\phi(q \| \pi), \qquad
              D_\phi(q \| \pi) = \sum_d \pi_d \, \phi(q_d / \pi_d)

    ``L`` is ``losses`` and ``pi`` is the ``prior``. The maximum has a closed form. With ``[x]_+ = max(x, 0)``:

    - ``"kl"``, ``phi(z) = z log z - z + 1``: ``c_d ∝ pi_d exp(beta L_d)``;
    - ``"chi2"`` (Pearson), ``phi(z) = (z - 1)²``: ``c_d = pi_d [1 + beta (L_d + lambda) / 2]_+``, where ``lambda``
      makes the sum 1. Easy domains get exactly zero;
    - ``"cvar"``, ``phi(z) = 0`` up to ``1 + beta`` and infinite above: no domain gets more than ``1 + beta`` times its
      prior. The objective is the mean over the worst fraction ``level = 1 / (1 + beta)``, so ask for a level by
      ``beta = 1 / level - 1``. Domains of equal loss share by their prior.

    With each of them ``beta = 0`` gives the prior, and ``beta = inf`` gives the prior restricted to the domains of
    largest loss. Where every example is a domain this is example-level DRO. ``"kl"`` and ``"chi2"`` cost O(D).
    ``"cvar"`` sorts, which costs O(D log D).

    Args:
        beta: non-negative scalar, in 1 / loss (without a unit for ``"cvar"``); ``inf`` is allowed.
        divergence: the name of ``phi``.
        scale: positive scalar that multiplies ``phi``, which is the same as dividing ``beta`` by it. It changes nothing
            for ``"cvar"``, whose ``phi`` is 0 or infinite. The paper leaves it open for Pearson's divergence: half of
            the literature has ``phi(z) = (z - 1)² / 2``, which is ``scale=0.5``.

    Signals:
        losses: mean losses ``[D]``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.LastLossState`. A row not seen keeps
        its last loss. A row never seen keeps its prior share.

    Raises:
        ValueError: ``beta`` is negative or NaN, ``scale`` is not positive and finite, or ``divergence`` is unknown.

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
    check_arguments(beta, divergence, scale)

    def init(prior):
        prior = as_simplex("prior", prior)
        losses, seen = jnp.zeros_like(prior), jnp.zeros(prior.shape, bool)
        return first_state(LastLossState, prior, losses=losses, seen=seen)

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        losses, seen = jnp.where(now, losses, state.losses), state.seen | now
        rate, phi_scale = jnp.asarray(beta, jnp.float32), jnp.asarray(scale, jnp.float32)
        # Rows never seen take no part, because a prior of zero keeps them out of the closed form.
        prior_seen = jnp.where(seen, state.prior, 0.0)
        log_scores = jnp.log(state.prior) + log_ratios(losses, prior_seen, rate, divergence, phi_scale)
        weights = share(state.prior, log_scores, seen)
        # At beta = 0 the closed forms agree with the prior up to rounding only.
        weights = jnp.where(rate > 0, weights, state.prior)
        new = state._replace(weights=weights, losses=losses, seen=seen)
        return if_news(counts, new, state, now)

    return WeightRule(init, update)
