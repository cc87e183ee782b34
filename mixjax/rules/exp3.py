"""Online data mixing: a bandit that looks for the domains of largest loss (Albalak et al., 2023)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_range
from mixjax.rules.base import if_news, masked_softmax, read_signals
from mixjax.types import WeightRule

_HUGE = 1e36


class Exp3State(NamedTuple):
    """State of :func:`exp3`.

    Attributes:
        weights: float32 ``[D]`` on the simplex, positive wherever the prior is.
        prior: float32 ``[D]``.
        rewards: float32 ``[D]``, moving averages of the importance-weighted losses.
        step: int32 scalar, updates so far that saw a domain.
    """

    weights: jax.Array
    prior: jax.Array
    rewards: jax.Array
    step: jax.Array


def exp3(decay: ArrayLike = 0.99) -> WeightRule:
    r"""Weights of a bandit that is paid a domain's loss for drawing it: it explores less and less.

    .. math:: \hat R_d \leftarrow \alpha \hat R_d + (1 - \alpha) L_d / c_d \quad \text{for the domains drawn}, \qquad
              c_d = (1 - D \epsilon_t) \frac{\pi_d \exp(\epsilon_{t-1} \hat R_d)}{Z} + D \epsilon_t \pi_d, \qquad
              \epsilon_t = \min\Bigl(\frac{1}{D}, \sqrt{\frac{\log D}{D t}}\Bigr)

    ``L`` is ``losses``, ``alpha`` the ``decay``, ``t`` the number of updates; ``D`` counts the domains of positive
    prior. Draw one domain (or a few) from ``weights``, train on it, and update with ``counts`` 0 elsewhere: dividing by
    the probability of the draw makes up for the domains not drawn; with all of them counted it would favour small
    weights. See :mod:`mixjax.mixing` for the draw.

    Args:
        decay: scalar in [0, 1]; the default is ours.

    Signals:
        losses: mean losses ``[D]``; negative ones are fine.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`Exp3State`. Rows not seen keep their reward, while their weight
        follows the others' and the exploration.

    Raises:
        ValueError: ``decay`` outside [0, 1].

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
        1; Auer et al., "The nonstochastic multiarmed bandit problem" (2002). Deviations: it starts at the prior and
        explores it, where the paper's is ``1 / D``; the warm-up, one pass over every domain, is the caller's.
    """
    check_range("decay", decay, 0.0, 1.0)

    def init(prior):
        prior = as_simplex("prior", prior)
        return Exp3State(prior, prior, jnp.zeros_like(prior), jnp.zeros((), jnp.int32))

    def update(state, *, counts, losses, **signals):
        del signals
        seen, losses = read_signals(state, counts, losses=losses)
        alpha = jnp.asarray(decay, jnp.float32)
        paid = jnp.clip(losses / jnp.maximum(state.weights, jnp.finfo(jnp.float32).tiny), -_HUGE, _HUGE)
        rewards = jnp.where(seen, alpha * state.rewards + (1.0 - alpha) * paid, state.rewards)

        there = state.prior > 0
        number = jnp.sum(there, dtype=jnp.float32)
        step = state.step + jnp.any(seen)

        def exploration(t):
            return jnp.minimum(1.0 / number, jnp.sqrt(jnp.log(number) / (number * jnp.maximum(t, 1))))

        explored = number * exploration(step)
        height = rewards - jnp.where(there, rewards, -jnp.inf).max()
        exploited = masked_softmax(jnp.log(state.prior) + exploration(step - 1) * height, there)
        weights = (1.0 - explored) * exploited + explored * state.prior
        weights = jnp.where(jnp.any(seen), weights, state.weights)
        return if_news(counts, Exp3State(weights, state.prior, rewards, step), state)

    return WeightRule(init, update)
