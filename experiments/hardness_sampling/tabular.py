"""Splits tables by group, and trains a small classifier on them with a rule for loss weights or with a sampler."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax import samplers, weighted_loss

__all__ = [
    "FRACTIONS",
    "Rows",
    "any_rows",
    "init",
    "losses",
    "measure",
    "part_sizes",
    "rows_by_weight",
    "scores",
    "split",
    "train_with_rule",
    "train_with_sampler",
]

# The shares of each group that are training, validation and test rows.
FRACTIONS = (0.5, 0.2, 0.3)


class Rows(NamedTuple):
    """Holds rows of a table.

    Attributes:
        features: the features, ``[n, d]``.
        labels: the labels, 0 or 1, ``[n]``.
        groups: the group of each row, ``[n]``.
    """

    features: jax.Array
    labels: jax.Array
    groups: jax.Array


def split(key: jax.Array, rows: Rows, sizes: np.ndarray) -> list[Rows]:
    """Splits each group at random into parts, such as training, validation and test rows.

    Args:
        key: draws the split.
        rows: the table.
        sizes: the number of rows of each group in each part, a NumPy array ``[parts, G]``.

    Returns:
        The parts, each sorted by group.
    """
    # Sorting by group, and at random within a group, puts each group's rows of one part next to each other.
    order = jnp.lexsort((jax.random.uniform(key, rows.labels.shape), rows.groups))
    part = np.concatenate([np.repeat(np.arange(len(sizes)), of_group) for of_group in sizes.T])
    return [jax.tree.map(lambda x, n=n: x[order[part == n]], rows) for n in range(len(sizes))]


def part_sizes(group_sizes: np.ndarray) -> np.ndarray:
    """Returns the number of rows of each group in the training, validation and test part, ``[3, G]``."""
    validation, test = (np.round(fraction * group_sizes).astype(int) for fraction in FRACTIONS[1:])
    return np.stack([group_sizes - validation - test, validation, test])


def init(key: jax.Array, num_features: int, hidden: int) -> list[tuple[jax.Array, jax.Array]]:
    """Draws the layers ``(weights, biases)``: the last one is zero, a hidden one normal with variance 2 / inputs."""
    last = (jnp.zeros((hidden or num_features, 1)), jnp.zeros(1))
    if not hidden:
        return [last]
    weights = jnp.sqrt(2.0 / num_features) * jax.random.normal(key, (num_features, hidden))
    return [(weights, jnp.zeros(hidden)), last]


def scores(params, features: jax.Array) -> jax.Array:
    """Returns the log-odds of label 1, ``[n]``."""
    *inner, (weights, bias) = params
    for w, b in inner:
        features = jax.nn.relu(features @ w + b)
    return (features @ weights + bias)[..., 0]


def losses(params, rows: Rows) -> jax.Array:
    """Returns the cross-entropy of each row, in nats, ``[n]``."""
    return optax.sigmoid_binary_cross_entropy(scores(params, rows.features), rows.labels)


def measure(params, rows: Rows, num_groups: int) -> dict[str, jax.Array]:
    """Returns the accuracy (%) and the mean loss (nats) of each group."""
    right = (scores(params, rows.features) > 0) == (rows.labels > 0)
    values = jnp.stack([100.0 * right, losses(params, rows), jnp.ones(right.shape)], axis=1)
    accuracy, loss, count = jax.ops.segment_sum(values, rows.groups, num_groups).T
    return {"accuracy": accuracy / count, "loss": loss / count}


def any_rows(num_rows: int, size: int):
    """Returns a ``draw`` for :func:`train_with_rule`: rows are drawn uniformly, and each is a domain of its own."""
    return lambda weights, key: (jax.random.randint(key, (size,), 0, num_rows), jnp.arange(size))


def rows_by_weight(group_sizes: np.ndarray, size: int):
    """Returns a ``draw`` for :func:`train_with_rule` that draws half of a batch by the loss weights, and half evenly.

    The first half keeps the gradient of a heavy group from being noisier than ERM's. The second half shows every group
    to the rule. The training rows must be sorted by group.
    """
    groups = samplers.Partition(np.arange(group_sizes.sum()), np.cumsum(group_sizes) - group_sizes, group_sizes)

    def draw(weights, key):
        counts = samplers.allocate(0.5 * weights + 0.5 / len(group_sizes), size)
        domain_ids = samplers.counts_to_ids(counts, size)
        return samplers.with_replacement(key, groups, domain_ids), domain_ids

    return draw


def train_with_rule(optimizer, params, rows: Rows, keys, *, rule, prior, draw):
    """Trains on ``sum_d c_d L_d``, and updates the rule on the very batch that it weights.

    Args:
        optimizer: an optax transformation.
        params: the first parameters.
        rows: the training rows.
        keys: one ``jax.random.key`` for each step.
        rule: the rule for the loss weights ``c``.
        prior: the prior over the domains.
        draw: ``draw(loss_weights, key) -> (indices, domain_ids)`` draws a step's batch.

    Returns:
        The last parameters.
    """

    def step(carry, key):
        params, opt_state, state = carry
        batch, domain_ids = draw(state.weights, key)

        def objective(params):
            return weighted_loss(rule, state, losses(params, jax.tree.map(lambda x: x[batch], rows)), domain_ids)

        # The new state is the auxiliary output: the rule updates on the losses of the same pass.
        grads, state = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, state), None

    carry = params, optimizer.init(params), rule.init(prior)
    return jax.lax.scan(step, carry, keys)[0][0]


def train_with_sampler(optimizer, params, rows: Rows, keys, *, sampler, batch_size: int):
    """Trains on the mean loss of batches that a sampler draws: algorithm 1 without importance sampling.

    The stale losses start with those of the first parameters, which costs one pass over the rows.

    Args:
        optimizer: an optax transformation.
        params: the first parameters.
        rows: the training rows.
        keys: one ``jax.random.key`` for each step.
        sampler: the sampler over the training rows.
        batch_size: the number of rows in a batch.

    Returns:
        The last parameters.
    """

    def step(carry, key):
        params, opt_state, state = carry
        batch, _ = sampler.sample(state, key, batch_size)

        def objective(params):
            values = losses(params, jax.tree.map(lambda x: x[batch], rows))
            return values.mean(), values

        grads, values = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, sampler.update(state, batch, values)), None

    carry = params, optimizer.init(params), sampler.init(losses(params, rows))
    return jax.lax.scan(step, carry, keys)[0][0]
