"""Builds the schemes by which the imbalanced MNIST experiments draw and weight training examples.

A *position* is an index into the ``n`` training examples.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixjax import rules, samplers

__all__ = ["Scheme", "chi_squared", "hardness", "shuffled"]


class Scheme(NamedTuple):
    """Draws and weights examples.

    Attributes:
        init: ``init(losses, key) -> state`` starts from a history of losses ``[n]``.
        sample: ``sample(state, key) -> positions, state`` draws the positions ``[b]`` of a batch.
        weights: ``weights(state, positions, losses) -> weights`` returns the weight ``[b]`` of each loss in the mean of
            the batch.
        update: ``update(state, positions, losses) -> state`` takes the losses of a batch into the history.
        history: ``history(state)`` returns the stale losses ``[n]``.
        log_probs: ``log_probs(state)`` returns the log probabilities ``[n]`` of the next draw.
    """

    init: Callable
    sample: Callable
    weights: Callable
    update: Callable
    history: Callable
    log_probs: Callable


def shuffled(n: int, batch_size: int) -> Scheme:
    """Builds the scheme of ERM: epochs in random order. Its history is only kept to be compared with the others'."""
    groups = samplers.partition(np.zeros(n, np.int32))

    def sample(state, key):
        positions, epochs = samplers.without_replacement(state[0], groups, jnp.zeros(batch_size, jnp.int32))
        return positions, (epochs, state[1])

    return Scheme(
        init=lambda losses, key: (samplers.start_epochs(key, 1), losses),
        sample=sample,
        weights=lambda state, positions, losses: jnp.ones_like(losses),
        update=lambda state, positions, losses: (state[0], state[1].at[positions].set(losses)),
        history=lambda state: state[1],
        log_probs=lambda state: jnp.full(n, -jnp.log(n)),
    )


def hardness(
    n: int, batch_size: int, beta: jax.typing.ArrayLike, *, replacement: bool = True, importance: str | None = None
) -> Scheme:
    """Builds the scheme of algorithm 1, which draws from softmax(beta L) of the stale losses.

    Args:
        n: the number of training examples.
        batch_size: the number of examples in a batch.
        beta: the inverse temperature, in 1 / nats.
        replacement: True to draw with replacement within a batch.
        importance: the kind of importance weights, or None for weights of 1.
    """
    sampler = samplers.hardness(n, beta, replacement=replacement)

    def weights(state, positions, losses):
        if importance is None:
            return jnp.ones_like(losses)
        return sampler.importance_weights(state, positions, losses, kind=importance)

    return Scheme(
        init=lambda losses, key: sampler.init(losses),
        sample=lambda state, key: (sampler.sample(state, key, batch_size)[0], state),
        weights=weights,
        update=sampler.update,
        history=lambda state: state.values,
        log_probs=sampler.log_probs,
    )


def chi_squared(n: int, batch_size: int, beta: jax.typing.ArrayLike) -> Scheme:
    """Builds the scheme of algorithm 1 with Pearson's chi-squared divergence.

    Every example is a domain of :func:`mixjax.rules.dro`, so that a step costs O(n).
    """
    rule = rules.dro(beta, "chi2")

    def update(state, positions, losses):
        # Examples outside the batch count as unseen, so that the rule keeps their last losses.
        counts = jnp.zeros(n).at[positions].set(1.0)
        return rule.update(state, counts=counts, losses=jnp.zeros(n).at[positions].set(losses))

    return Scheme(
        init=lambda losses, key: rule.update(rule.init(jnp.ones(n)), counts=jnp.ones(n), losses=losses),
        sample=lambda state, key: (samplers.multinomial(key, state.weights, batch_size), state),
        weights=lambda state, positions, losses: jnp.ones_like(losses),
        update=update,
        history=lambda state: state.losses,
        log_probs=lambda state: jnp.log(state.weights),
    )
