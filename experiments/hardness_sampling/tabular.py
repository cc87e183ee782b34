"""Tables split by group, a small classifier, and its training with weights on losses or on examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax import samplers, weighted_loss

FRACTIONS = (0.5, 0.2, 0.3)  # of each group: training, validation, test


class Rows(NamedTuple):
    """Rows of a table: ``features`` ``[n, d]``, ``labels`` ``[n]`` and ``groups`` ``[n]``."""

    features: jax.Array
    labels: jax.Array
    groups: jax.Array


def split(key: jax.Array, rows: Rows, sizes: np.ndarray) -> list[Rows]:
    """A random split of each group into training, validation and test rows, each sorted by group.

    Args:
        key: of the split.
        rows: the table.
        sizes: rows of each part and group, ``[3, G]``, concrete.
    """
    order = jnp.lexsort((jax.random.uniform(key, rows.labels.shape), rows.groups))
    part = np.concatenate([np.repeat(np.arange(len(sizes)), of_group) for of_group in sizes.T])
    return [jax.tree.map(lambda x, n=n: x[order[part == n]], rows) for n in range(len(sizes))]


def part_sizes(group_sizes: np.ndarray) -> np.ndarray:
    """Rows of each group in the training, validation and test part, ``[3, G]``."""
    validation, test = (np.round(fraction * group_sizes).astype(int) for fraction in FRACTIONS[1:])
    return np.stack([group_sizes - validation - test, validation, test])


def init(key: jax.Array, num_features: int, hidden: int) -> list[tuple[jax.Array, jax.Array]]:
    """Layers ``(weights, biases)``: zero for the last one, normal of variance 2 / inputs for the hidden one."""
    last = (jnp.zeros((hidden or num_features, 1)), jnp.zeros(1))
    if not hidden:
        return [last]
    return [(jnp.sqrt(2.0 / num_features) * jax.random.normal(key, (num_features, hidden)), jnp.zeros(hidden)), last]


def scores(params, features: jax.Array) -> jax.Array:
    """Log-odds of label 1."""
    *inner, (weights, bias) = params
    for w, b in inner:
        features = jax.nn.relu(features @ w + b)
    return (features @ weights + bias)[..., 0]


def losses(params, rows: Rows) -> jax.Array:
    """Cross-entropy of each row, in nats."""
    return optax.sigmoid_binary_cross_entropy(scores(params, rows.features), rows.labels)


def measure(params, rows: Rows, num_groups: int) -> dict[str, jax.Array]:
    """Accuracy (%) and mean loss of each group."""
    right = (scores(params, rows.features) > 0) == (rows.labels > 0)
    values = jnp.stack([100.0 * right, losses(params, rows), jnp.ones(right.shape)], axis=1)
    accuracy, loss, count = jax.ops.segment_sum(values, rows.groups, num_groups).T
    return {"accuracy": accuracy / count, "loss": loss / count}


def any_rows(num_rows: int, size: int):
    """``draw`` of :func:`train_with_rule` for DRO over the examples of the batch: uniform, each a domain of its own."""
    return lambda weights, key: (jax.random.randint(key, (size,), 0, num_rows), jnp.arange(size))


def rows_by_weight(group_sizes: np.ndarray, size: int):
    """``draw`` of :func:`train_with_rule` for groups: half of the batch by the loss weights, half the same for all.

    The first half keeps the gradient of a heavy group from being noisier than ERM's, the second shows every group to
    the rule. Rows are sorted by group.
    """
    groups = samplers.Partition(np.arange(group_sizes.sum()), np.cumsum(group_sizes) - group_sizes, group_sizes)

    def draw(weights, key):
        counts = samplers.allocate(0.5 * weights + 0.5 / len(group_sizes), size)
        domain_ids = samplers.counts_to_ids(counts, size)
        return samplers.with_replacement(key, groups, domain_ids), domain_ids

    return draw


def train_with_rule(optimizer, rule, prior, params, rows: Rows, draw, keys):
    """SGD on ``sum_d c_d L_d``, with the rule updated on the very batch it weights.

    Args:
        optimizer: an optax transformation.
        rule: for the loss weights.
        prior: over the domains.
        params: initial.
        rows: training rows.
        draw: ``draw(loss weights, key) -> (indices, domain_ids)`` of a step's batch.
        keys: one a step.
    """

    def step(carry, key):
        params, opt_state, state = carry
        batch, domain_ids = draw(state.weights, key)

        def objective(params):
            return weighted_loss(rule, state, losses(params, jax.tree.map(lambda x: x[batch], rows)), domain_ids)

        grads, state = jax.grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, state), None

    carry = params, optimizer.init(params), rule.init(prior)
    return jax.lax.scan(step, carry, keys)[0][0]


def train_with_sampler(optimizer, sampler, params, rows: Rows, batch_size: int, keys):
    """Algorithm 1 without importance sampling: SGD on the mean loss of batches that the sampler draws.

    The stale losses start at the initial parameters' own, which costs one pass.
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
