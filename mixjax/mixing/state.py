"""Defines the state that data mixing carries from round to round: parameters, optimizer, weights and counters."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mixjax.rules.base import own_buffers
from mixjax.types import WeightRule

__all__ = ["MixingState", "init_state"]


class MixingState(flax.struct.PyTreeNode):
    """Holds everything that data mixing carries from round to round.

    It is a flax dataclass: ``state.replace(params=...)`` returns a changed copy, and ``flax.serialization`` saves it.

    Attributes:
        params: pytree of parameters.
        opt_state: the optimizer's state.
        rule_state: the rule's state. ``rule_state.weights`` are the latest weights.
        mean_weights: float32 ``[D]``, the mean, over all updates so far, of the weights before the update, with which
            the steps were taken. The theory speaks of this mean, and another model should be trained with it.
        round: int32 scalar, the number of updates of the weights so far.
        step: int32 scalar, the number of optimizer steps so far.
        T: int32 scalar, the number of steps in a round. It is 0 before :func:`mixjax.mixing.fit` has chosen it.
        nonfinite_updates: int32 scalar, the number of updates so far whose hypergradient was NaN or infinite in at
            least one domain. The rule left these domains' weights as they were.
    """

    params: Any
    opt_state: Any
    rule_state: Any
    mean_weights: jax.Array
    round: jax.Array
    step: jax.Array
    T: jax.Array
    nonfinite_updates: jax.Array


def init_state(params: Any, optimizer: optax.GradientTransformation, prior: ArrayLike, rule: WeightRule) -> MixingState:
    """Returns the state before the first round.

    Args:
        params: pytree of parameters.
        optimizer: an optax transformation.
        prior: ``[D]``, non-negative. Usual choices are uniform over the domains, or in proportion to their sizes.
        rule: the rule for the loss weights.

    Returns:
        A :class:`MixingState` of copies, so that it can be donated and ``params`` stay. :func:`mixjax.mixing.fit` has
        an example.

    Raises:
        ValueError: the prior is not a non-negative vector.
    """
    rule_state = rule.init(prior)
    round_, step, horizon, nonfinite = (jnp.zeros((), jnp.int32) for _ in range(4))
    state = MixingState(
        params=params,
        opt_state=optimizer.init(params),
        rule_state=rule_state,
        mean_weights=rule_state.weights,
        round=round_,
        step=step,
        T=horizon,
        nonfinite_updates=nonfinite,
    )
    # A donated buffer is deleted. So none may stand in two fields, as a rule's first weights and its prior may, and
    # none may be the caller's.
    return own_buffers(state)
