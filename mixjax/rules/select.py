"""Chooses one of several rules by an index, so that a comparison of methods is one program."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import is_concrete
from mixjax.meshes import varying_like
from mixjax.rules.base import if_news, own_buffers
from mixjax.rules.states import SelectState
from mixjax.types import WeightRule

__all__ = ["select"]


def select(rules: Sequence[WeightRule], index: ArrayLike) -> WeightRule:
    """Chooses one of several rules by an index that may be traced, so that one program compares whole methods.

    ``lax.switch`` encloses ``update`` only. Under ``vmap`` with a batched index every rule is computed and one is kept,
    which is cheap, because a rule computes on ``D`` numbers only. Do not put such a switch around a training run, where
    every branch would train.

    Args:
        rules: the rules to choose from, at least one.
        index: integer scalar in [0, len(rules)). A traced one is clamped into this range, as ``lax.switch`` does.

    Signals:
        All signals that any of the rules needs.

    Returns:
        A :class:`mixjax.WeightRule` with state :class:`mixjax.rules.states.SelectState`.

    Raises:
        ValueError: there are no rules, or a concrete index is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def weights(index):
        ...     rule = mixjax.rules.select([mixjax.rules.fixed(), mixjax.rules.fgls()], index)
        ...     state = rule.init(jnp.array([0.5, 0.5]))
        ...     return rule.update(state, counts=jnp.array([9, 9]), losses=jnp.array([1.0, 3.0])).weights
        >>> jax.vmap(weights)(jnp.arange(2)).tolist()
        [[0.5, 0.5], [0.75, 0.25]]
    """
    rules = tuple(rules)
    if not rules:
        raise ValueError("select needs at least one rule.")
    if is_concrete(index) and not 0 <= int(np.asarray(index)) < len(rules):
        raise ValueError(f"index must be in [0, {len(rules)}), got {index}.")
    # lax.switch clamps a traced index, and the lookup of the weights below has to use the same one.
    index = jnp.clip(jnp.asarray(index, jnp.int32), 0, len(rules) - 1)

    def wrap(states):
        weights = jnp.stack([state.weights for state in states])[index]
        return SelectState(weights, states[0].prior, states)

    def init(prior):
        return own_buffers(wrap(tuple(rule.init(prior) for rule in rules)))

    def update(state, *, counts, **signals):
        def same_type(states):
            return varying_like(states, state, index, counts, signals)

        # The branches close over the signals, because signals that no rule knows need not be arrays.
        def branch(i):
            # Every branch returns the states of all rules, because lax.switch needs results of one structure; and of
            # one type, also where each device has signals of its own.
            def update_one(states):
                updated = rules[i].update(states[i], counts=counts, **signals)
                return same_type((*states[:i], updated, *states[i + 1 :]))

            return update_one

        states = jax.lax.switch(index, [branch(i) for i in range(len(rules))], same_type(state.states))
        return if_news(counts, wrap(states), state)

    return WeightRule(init, update)
