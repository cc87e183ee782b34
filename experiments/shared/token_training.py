"""Trains a small decoder on a fixed mix of domains, as one pure function that a sweep can map over mixes and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.shared.decoder import Decoder, adamw
from experiments.shared.device_plan import draw, shuffled_rows, start_draws

__all__ = ["Proxy", "Rows", "drawn_rows", "train"]


@dataclasses.dataclass(frozen=True)
class Proxy:
    """Holds the settings of a model and of its training.

    Attributes:
        width: width of the decoder.
        layers: blocks of the decoder.
        heads: heads of its attention.
        batch_size: rows of a step.
        num_steps: optimizer steps.
        learning_rate: the highest one, after the warm-up.
        warmup: share of the steps in which the learning rate rises; then it falls along a cosine.
        clip: largest norm of a gradient.
    """

    width: int
    layers: int
    heads: int
    batch_size: int
    num_steps: int
    learning_rate: float
    warmup: float = 0.05
    clip: float = 1.0

    @property
    def num_rows(self) -> int:
        """Returns how many rows a run draws."""
        return self.batch_size * self.num_steps


class Rows(NamedTuple):
    """Holds the text that a run is trained and tested on.

    Attributes:
        train: unsigned ``[rows, length + 1]``, the training rows of all domains, one domain after the other.
        test: unsigned ``[M, n, length + 1]``, the rows on which each of M losses is measured.
    """

    train: jax.Array
    test: jax.Array

    @classmethod
    def of(cls, train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> Rows:
        """Puts together the rows of several domains, which may differ in number for training and not for the test."""
        return cls(jnp.asarray(np.concatenate(list(train.values()))), jnp.asarray(np.stack(list(test.values()))))


def drawn_rows(key: jax.Array, weights: jax.Array, sizes: Sequence[int], batch_size: int, num_steps: int) -> jax.Array:
    """Draws the rows of a whole run as a live plan does: exact counts, and each domain in a new order each epoch.

    Args:
        key: decides on the orders.
        weights: ``[D]``, the sampling weights.
        sizes: the number of rows of each domain, D Python integers.
        batch_size: rows of a step.
        num_steps: number of steps.

    Returns:
        int32 ``[num_steps, batch_size]``, numbers of rows in the domains' rows one after the other.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    orders = shuffled_rows(key, sizes, batch_size * num_steps) + starts[:, None]

    def step(state, _):
        drawn, state = draw(state, weights, None, batch_size)
        return state, orders[drawn.domain_ids, drawn.row_numbers]

    return jax.lax.scan(step, start_draws(len(sizes)), length=num_steps)[1]


def train(
    key: jax.Array, weights: jax.Array, rows: Rows, *, sizes: Sequence[int], proxy: Proxy, vocabulary: int
) -> jax.Array:
    """Trains on a fixed mix, in which loss weights and sampling weights are the same, and tests at the end.

    Args:
        key: decides on the start and on the orders of the rows.
        weights: ``[D]``, the mix.
        rows: the text.
        sizes: the number of training rows of each domain, D Python integers.
        proxy: the settings.
        vocabulary: number of different tokens.

    Returns:
        ``[M]``, the test losses in nats per token.
    """
    length = rows.train.shape[1] - 1
    init_key, order_key = jax.random.split(key)
    rngs = nnx.Rngs(init_key)
    model = Decoder(proxy.layers, proxy.width, proxy.heads, length, vocabulary=vocabulary, rngs=rngs)
    graph, params = nnx.split(model, nnx.Param)
    optimizer = adamw(proxy.num_steps, proxy.learning_rate, proxy.warmup, proxy.clip)

    def mean_loss(params, batch):
        logits = nnx.merge(graph, params)(batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:].astype(jnp.int32)).mean()

    def step(state, numbers):
        params, opt_state = state
        grads = jax.grad(mean_loss)(params, rows.train[numbers])
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    drawn = drawn_rows(order_key, weights, sizes, proxy.batch_size, proxy.num_steps)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), drawn)
    return jax.lax.map(lambda test: mean_loss(params, test), rows.test)
