"""Implements online data mixing, a bandit that looks for the domains of largest loss (Albalak et al., 2023)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_choice, check_range
from mixjax.rules.base import bounded, first_state, if_news, masked_softmax, read_signals
from mixjax.rules.states import RewardState
from mixjax.types import WeightRule

__all__ = ["exp3"]

# Rewards may be larger than HUGE, because only differences, averages and a product with a rate of at most 1 follow.
_MAX_REWARD = 1e36

# exp(80) is within float32.
_MAX_EXPONENT = 80.0


def exp3(decay: ArrayLike = 0.99, *, reward: Literal["importance", "perplexity"] = "importance") -> WeightRule:
    r"""Makes the weights of a bandit whose reward for drawing a domain is its loss, and which explores less and less.

    .. math:: \hat R_d \leftarrow \alpha \hat R_d + (1 - \alpha) L_d / c_d \quad \text{for the domains drawn}, \qquad
              c_d = (1 - D \epsilon_t) \frac{\pi_d \exp(\epsilon_{t-1} \hat R_d)}{Z} + D \epsilon_t \pi_d, \qquad
              \epsilon_t = \min\Bigl(\frac{1}{D}, \sqrt{\frac{\log D}{D t}}\Bigr)

    ``L`` is ``losses``, ``alpha`` is ``decay``, ``pi`` is the ``prior``, ``t`` is the number of updates, and ``D``
    counts the domains of positive prior. Draw one domain (or a few) from ``weights``, train on it, and update with
    ``counts`` 0 elsewhere. Dividing the loss by the probability of the draw makes up for the domains not drawn; if all
    domains were counted, the division would favour small weights. See :mod:`mixjax.mixing` for the draw.

    Where batches hold many domains, ``reward="perplexity"`` is the rule in the authors' code:

    .. math:: \hat R_d \leftarrow \alpha \hat R_d + (1 - \alpha) \exp(L_d) \quad \text{for the domains seen}, \qquad
              c_d = (1 - D \epsilon_t) \frac{\pi_d \hat R_d}{Z} + D \epsilon_t \pi_d

    Args:
        decay: scalar in [0, 1], the weight of the old rewards in the moving average. The default is ours; the authors'
            code has 0.5 to 0.9 with ``"perplexity"``.
        reward: ``"importance"`` for the paper's algorithm, in which one domain is drawn, ``"perplexity"`` for batches
            of many domains.

    Signals:
        losses: mean losses ``[D]``, of any sign.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.RewardState`. Rows not seen keep
        their reward, while their weight follows the rewards of the others and the exploration.

    Raises:
        ValueError: ``decay`` is outside [0, 1], or ``reward`` is unknown.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.exp3()
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> for _ in range(100):
        ...     state = rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0]))
        >>> bool(state.weights[1] > 0.5), state.rewards.round(1).tolist()
        (True, [1.3, 3.7])

    References:
        Albalak, Pan, Raffel and Wang, "Efficient online data mixing for language model pre-training" (2023), algorithm
        1; Auer et al., "The nonstochastic multiarmed bandit problem" (2002). Deviations: the rule starts at the prior
        and explores by the prior, where the paper has ``1 / D``; the warm-up, one pass over every domain, is left to
        the caller. The authors' code follows another formula than the paper wherever a batch holds many domains, and
        that is ``"perplexity"`` here; its weights too start from a uniform prior after the warm-up.
    """
    check_range("decay", decay, 0.0, 1.0)
    check_choice("reward", reward, ("importance", "perplexity"))

    def init(prior):
        prior = as_simplex("prior", prior)
        return first_state(RewardState, prior, rewards=jnp.zeros_like(prior), step=jnp.zeros((), jnp.int32))

    def update(state, *, counts, losses, **signals):
        del signals
        seen, losses = read_signals(state, counts, losses=losses)
        alpha = jnp.asarray(decay, jnp.float32)
        tiny = jnp.finfo(jnp.float32).tiny
        if reward == "perplexity":
            earned = jnp.exp(bounded(losses, _MAX_EXPONENT))
        else:
            # The weights of rows not seen may be zero, and the quotient of a large loss may overflow.
            earned = bounded(losses / jnp.maximum(state.weights, tiny), _MAX_REWARD)
        rewards = jnp.where(seen, alpha * state.rewards + (1.0 - alpha) * earned, state.rewards)

        there = state.prior > 0
        num_domains = jnp.sum(there, dtype=jnp.float32)
        step = state.step + jnp.any(seen).astype(jnp.int32)
        explored = num_domains * _exploration(step, num_domains)
        if reward == "perplexity":
            log_scores = jnp.log(jnp.maximum(rewards, tiny))
        else:
            # The softmax is the same after the largest reward is subtracted, and the product cannot overflow then.
            height = rewards - jnp.where(there, rewards, -jnp.inf).max()
            log_scores = _exploration(step - 1, num_domains) * height
        exploited = masked_softmax(jnp.log(state.prior) + log_scores, there)
        weights = (1.0 - explored) * exploited + explored * state.prior
        # An update that saw no domain is not a step, so exploration must not move either.
        weights = jnp.where(jnp.any(seen), weights, state.weights)
        new = state._replace(weights=weights, rewards=rewards, step=step)
        return if_news(counts, new, state, seen)

    return WeightRule(init, update)


def _exploration(step, num_domains):
    """Returns ``epsilon_t`` for ``t = step``, the share of exploration in each domain's weight."""
    # Step 0, before any draw, would divide by zero; the minimum is 1 / D there in any case.
    rate = jnp.sqrt(jnp.log(num_domains) / (num_domains * jnp.maximum(step, 1).astype(jnp.float32)))
    return jnp.minimum(1.0 / num_domains, rate)
