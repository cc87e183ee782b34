"""Trains and evaluates a classifier on MNIST with a rare class.

A *position* is an index into the ``n`` kept training examples, of which the last ``num_rare`` are the rare class.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.hardness_sampling import classifiers
from experiments.hardness_sampling.rare_class import Images, Problem, Split, num_rare, split
from experiments.hardness_sampling.schemes import Scheme
from mixjax import samplers

__all__ = [
    "CHUNK",
    "EVALUATED",
    "LOG_10",
    "UNITS",
    "Carry",
    "evaluate",
    "over",
    "start",
    "step",
    "train_losses",
]

# The loss of a guess among ten classes. The history holds it, with 0.1 % of noise, for examples not yet drawn.
LOG_10 = math.log(10.0)
# The number of images in one forward pass where no gradient is taken.
CHUNK = 251

# The units of the metrics that :func:`evaluate` measures on the test set and on the training set.
EVALUATED: Mapping[str, str] = {
    "rare_accuracy": "%",
    "accuracy": "%",
    "train_loss": "nats",
    "train_loss_std": "nats",
    "rare_train_loss": "nats",
}
# The units of all metrics of :func:`evaluate` and :func:`step`.
UNITS: Mapping[str, str] = {
    **EVALUATED,
    "stale_correlation": "1",
    "effective_sample_size": "share of n",
    "batch_loss": "nats",
    "rare_share": "share of draws",
}


class Carry(NamedTuple):
    """Holds the state of training: the parameters, the running statistics, the scheme's state and the next key."""

    params: Any
    stats: Any
    state: Any
    key: jax.Array


def start(key: jax.Array, problem: Problem, images: Images, scheme: Scheme) -> tuple[Split, Carry]:
    """Draws the split and the state before the first step.

    At equal keys they are equal for every scheme, so that runs of different schemes are paired.
    """
    split_key, init_key, noise_key, scheme_key, train_key = jax.random.split(key, 5)
    parts = split(split_key, problem, images)
    params, stats = classifiers.build(problem.model).init(init_key)
    history = LOG_10 * (1.0 + 1e-3 * jax.random.normal(noise_key, parts.kept.shape))
    return parts, Carry(params, stats, scheme.init(history, scheme_key), train_key)


def over(function: Callable, ids: jax.Array) -> Any:
    """Returns ``function(ids)``, computed ``CHUNK`` ids at a time so that memory stays small."""
    padded = jnp.pad(ids, (0, -len(ids) % CHUNK)).reshape(-1, CHUNK)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(ids)], jax.lax.map(function, padded))


def train_losses(problem: Problem, images: Images, parts: Split, params, stats, positions) -> jax.Array:
    """Returns the losses of training examples at these parameters, in nats."""
    model = classifiers.build(problem.model)

    def losses(positions):
        ids = parts.kept[positions]
        return model.losses(params, stats, images.train[ids], images.train_labels[ids])[0]

    return over(losses, positions)


def step(carry: Carry, problem: Problem, images: Images, parts: Split, scheme: Scheme) -> tuple[Carry, dict]:
    """Takes one step of algorithm 1, and measures the batch."""
    model, sgd = classifiers.build(problem.model), optax.sgd(problem.learning_rate)
    key, sample_key = jax.random.split(carry.key)
    positions, state = scheme.sample(carry.state, sample_key)
    ids = parts.kept[positions]

    def objective(params):
        losses, stats = model.train_losses(params, carry.stats, images.train[ids], images.train_labels[ids])
        # Importance weights depend on the losses, but the algorithm treats them as constants.
        weights = jax.lax.stop_gradient(scheme.weights(state, positions, losses))
        return jnp.mean(weights * losses), (losses, stats)

    grads, (losses, stats) = jax.grad(objective, has_aux=True)(carry.params)
    # Plain SGD has no state that the carry would have to keep.
    updates, _ = sgd.update(grads, sgd.init(carry.params))
    state = scheme.update(state, positions, losses)
    rare = positions >= len(parts.kept) - num_rare(problem, images)
    carry = Carry(optax.apply_updates(carry.params, updates), stats, state, key)
    return carry, {"batch_loss": losses.mean(), "rare_share": rare.mean()}


def evaluate(carry: Carry, problem: Problem, images: Images, parts: Split, scheme: Scheme) -> dict:
    """Measures accuracies on the test set, losses on the training set, and how the history compares with the losses.

    A model with batch normalisation is evaluated twice: with its running statistics, and with statistics measured on
    training images that are drawn uniformly (``*_fresh_statistics``).
    """
    model = classifiers.build(problem.model)
    rare_test, rare_probe = len(images.test_rare), num_rare(problem, images)

    def measure(stats):
        _, right = over(
            lambda ids: model.losses(carry.params, stats, images.test[ids], images.test_labels[ids]), parts.test.ids
        )
        losses = train_losses(problem, images, parts, carry.params, stats, parts.probe.ids)
        return losses, {
            "rare_accuracy": 100.0 * right[-rare_test:].mean(),
            "accuracy": 100.0 * parts.test.mean(right),
            "train_loss": parts.probe.mean(losses),
            "train_loss_std": parts.probe.std(losses),
            "rare_train_loss": losses[-rare_probe:].mean(),
        }

    losses, found = measure(carry.stats)
    stale = scheme.history(carry.state)[parts.probe.ids]
    found["stale_correlation"] = parts.probe.correlation(stale, losses)
    found["effective_sample_size"] = samplers.effective_sample_size(scheme.log_probs(carry.state)) / len(parts.kept)
    if model.refresh is not None:
        # The rare class stands last in the probe: the first images are others, drawn uniformly.
        ids = parts.kept[parts.probe.ids[:CHUNK]]
        _, fresh = measure(model.refresh(carry.params, carry.stats, images.train[ids]))
        found |= {f"{name}_fresh_statistics": value for name, value in fresh.items()}
    return found
