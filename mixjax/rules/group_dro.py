"""Online group DRO: exponentiated gradient ascent on the domains' losses (Sagawa et al., 2020)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, check_positive, check_range
from mixjax.rules.base import HUGE, if_news, log_ratio, read_signals, share
from mixjax.types import WeightRule


class GroupDROState(NamedTuple):
    """State of :func:`group_dro`.

    Attributes:
        weights: float32 ``[D]`` on the simplex.
        prior: float32 ``[D]``.
        log_w: float32 ``[D]``, log of ``weights / prior``.
        losses: float32 ``[D]``, each domain's moving average of its losses, without the adjustment.
        seen: bool ``[D]``, whether there has been a loss.
    """

    weights: jax.Array
    prior: jax.Array
    log_w: jax.Array
    losses: jax.Array
    seen: jax.Array


def group_dro(
    step_size: ArrayLike = 0.01,
    *,
    adjustment: ArrayLike = 0.0,
    gamma: ArrayLike = 1.0,
    max_log_step: ArrayLike = 5.0,
) -> WeightRule:
    r"""Loss weights that climb towards the domain of largest loss, one exponentiated gradient step at a time.

    .. math:: \bar L_d \leftarrow (1 - \gamma) \bar L_d + \gamma L_d, \qquad
              c_d \leftarrow c_d \exp(\eta (\bar L_d + A_d)) \,/\, Z

    ``L`` is ``losses``, ``eta`` the ``step_size``, ``A`` the ``adjustment``; ``c`` starts at the prior, ``L̄`` at the
    first loss. ``Z`` keeps the total of the rows seen, so a domain that is absent from a batch keeps its weight exactly
    and does not sink as one of loss zero would.

    A floor under the weights is the wrapper's: ``floor(group_dro(...), fraction)`` mixes in the prior and leaves the
    recursion alone.

    Args:
        step_size: non-negative scalar, in 1 / loss.
        adjustment: scalar or ``[D]``, in units of the loss, any sign. The generalisation adjustment is
            ``C / jnp.sqrt(n)`` with ``n`` the number of training examples of each domain: small domains are watched
            more closely. It moves the weights and is in no loss that is reported. A scalar changes nothing.
        gamma: scalar in [0, 1]; 1 takes the last loss alone, as algorithm 1 does.
        max_log_step: positive scalar; bound on how far one step moves the log of two weights apart.

    Signals:
        losses: mean losses ``[D]``.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`GroupDROState`. Rows not seen keep their ``c_d``.

    Raises:
        ValueError: a negative ``step_size``, an ``adjustment`` that is not finite or does not fit the prior's shape,
            ``gamma`` outside [0, 1], a ``max_log_step`` that is not positive.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.group_dro(step_size=jnp.log(3.0))
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 2.0])).weights.tolist()
        [0.25, 0.75]

    References:
        Sagawa, Koh, Hashimoto and Liang, "Distributionally Robust Neural Networks for Group Shifts" (ICLR 2020),
        algorithm 1 and section 3.3; paper 004, section 5. Deviations: ``c`` starts at the prior, not at ``1 / D``; all
        domains of the batch move, not one drawn at random; exponents are taken relative to the largest, which ``Z``
        cancels, and clipped at ``max_log_step`` below it; ``log_w`` is kept within ±80, from where a weight can return.
    """
    check_range("step_size", step_size, 0.0)
    check_range("adjustment", adjustment, -jnp.inf)
    check_range("gamma", gamma, 0.0, 1.0)
    check_positive("max_log_step", max_log_step)
    adjustment = jnp.asarray(adjustment, jnp.float32)

    def init(prior):
        prior = as_simplex("prior", prior)
        if adjustment.shape not in ((), prior.shape):
            raise ValueError(f"adjustment must be a scalar or have shape {prior.shape}, got {adjustment.shape}.")
        return GroupDROState(prior, prior, jnp.zeros_like(prior), jnp.zeros_like(prior), jnp.zeros(prior.shape, bool))

    def update(state, *, counts, losses, **signals):
        del signals
        now, losses = read_signals(state, counts, losses=losses)
        rate = jnp.where(state.seen, jnp.asarray(gamma, jnp.float32), 1.0)
        average = jnp.where(now, (1.0 - rate) * state.losses + rate * losses, state.losses)

        height = jnp.where(now, average + adjustment, -jnp.inf)
        below = jnp.where(now, jnp.minimum(height.max() - height, HUGE), 0.0)
        fall = jnp.minimum(jnp.asarray(step_size, jnp.float32) * below, jnp.asarray(max_log_step, jnp.float32))
        weights = share(state.weights, jnp.log(state.prior) + state.log_w - fall, now)
        log_w = jnp.where(now, log_ratio(weights, state.prior), state.log_w)
        return if_news(counts, GroupDROState(weights, state.prior, log_w, average, state.seen | now), state)

    return WeightRule(init, update)
