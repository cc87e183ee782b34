"""Draws MNIST's noisy, skewed, swapped and clean domains, builds models and batches, and tests a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.loss_and_sampling_weights.noisy_images import Batch, flip_labels
from mixjax import data as datasets
from mixjax import hypergrad
from mixjax.runner.loading import load_once

NUM_CLASSES = 10
SKEWED = 4
"""Skewed images show the digits below this one."""
SWAPPED = np.array([0, 7, 2, 8, 9, 6, 5, 1, 3, 4])
"""The label that a swapped image of each digit gets: 1 and 7, 3 and 8, 4 and 9, 5 and 6 change places."""


class Split(NamedTuple):
    """Holds one seed's images: ``train`` has the domains one after the other, ``validation`` is clean."""

    train: Batch
    validation: Batch


class Beginning(NamedTuple):
    """Holds the arrays that a seed begins with: its split, its initial model, and the test images."""

    split: Split
    params: Any
    test: Batch


class Setup(NamedTuple):
    """Holds one seed's split, the arguments that :func:`mixjax.mixing.fit` asks for, and the test images."""

    split: Split
    loss: Callable[[Any, Batch], jax.Array]
    optimizer: optax.GradientTransformation
    draw: Callable[[jax.Array], Batch]
    params: Any
    test: Batch
    num_domains: int


@load_once
def load() -> dict[str, Batch]:
    """Loads MNIST's training and test images, pooled to 14 x 14."""
    images = datasets.load("mnist")
    return {
        "train": Batch(pool(images.train_images), images.train_labels),
        "test": Batch(pool(images.test_images), images.test_labels),
    }


def pool(images: np.ndarray) -> np.ndarray:
    """Averages over 2 x 2 pixels, ``[n, 784] -> [n, 196]``."""
    return images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(images), -1)


def split(key: jax.Array, config, images: Batch) -> Split:
    """Draws the validation set and the domains; no image is drawn twice."""
    order_key, flip_key = jax.random.split(key)
    free = jax.random.permutation(order_key, len(images.labels))
    validation, free = free[: config.validation], free[config.validation :]
    indices, labels = [], []
    for domain, size in zip(config.domains, config.sizes, strict=True):
        # Skewed images are taken from the end, so that the digits at the front stay as mixed as they are.
        if domain == "skewed":
            order = jnp.argsort(images.labels[free] < SKEWED, stable=True)
            chosen, free = free[order[-size:]], free[jnp.sort(order[:-size])]
        else:
            chosen, free = free[:size], free[size:]
        right = images.labels[chosen]
        wrong = {"noisy": flip_labels(flip_key, right, config.flip), "swapped": jnp.asarray(SWAPPED)[right]}
        indices.append(chosen)
        labels.append(wrong.get(domain, right))
    indices = jnp.concatenate(indices)
    train = Batch(images.images[indices], jnp.concatenate(labels))
    return Split(train, Batch(images.images[validation], images.labels[validation]))


def init(key: jax.Array, config, pixels: int) -> list[tuple[jax.Array, jax.Array]]:
    """Returns a kernel and a bias for each layer: hidden kernels normal of variance 2 / inputs, the last one zero."""
    if config.model == "logistic":
        return [(jnp.zeros((pixels, NUM_CLASSES)), jnp.zeros(NUM_CLASSES))]
    hidden = jnp.sqrt(2.0 / pixels) * jax.random.normal(key, (pixels, config.hidden))
    return [(hidden, jnp.zeros(config.hidden)), (jnp.zeros((config.hidden, NUM_CLASSES)), jnp.zeros(NUM_CLASSES))]


def scores(params, images: jax.Array) -> jax.Array:
    """Returns class scores ``[..., 10]``."""
    *hidden, (kernel, bias) = params
    for w, b in hidden:
        images = jax.nn.relu(images @ w + b)
    return images @ kernel + bias


def cross_entropy(params, batch: Batch) -> jax.Array:
    """Returns the mean cross-entropy of a batch, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(scores(params, batch.images), batch.labels).mean()


def begin(key: jax.Array, config, data: dict[str, Batch]) -> Beginning:
    """Draws a seed's split and its initial model."""
    split_key, init_key = jax.random.split(key)
    params = init(init_key, config, data["train"].images.shape[1])
    return Beginning(split(split_key, config, data["train"]), params, data["test"])


def setup(beginning: Beginning, config) -> Setup:
    """Sets up one seed: ``batch_size`` images of each domain a step, drawn with replacement, L2 and plain SGD."""
    parts = beginning.split
    sizes = np.array(config.sizes)
    starts = np.cumsum(sizes) - sizes

    def loss(params, batch):
        return cross_entropy(params, batch) + 0.5 * config.l2 * optax.tree.norm(params, squared=True)

    def draw(key):
        within = jax.random.randint(key, (config.batch_size, len(sizes)), 0, sizes)
        return jax.tree.map(lambda x: x[(starts + within).T], parts.train)

    return Setup(parts, loss, optax.sgd(config.learning_rate), draw, beginning.params, beginning.test, len(sizes))


def worth(problem: Setup, params) -> dict[str, jax.Array]:
    """Measures a model's test accuracy, test loss and validation loss, without the L2 term."""
    right = jnp.argmax(scores(params, problem.test.images), axis=-1) == problem.test.labels
    return {
        "accuracy": 100.0 * right.mean(),
        "test_loss": cross_entropy(params, problem.test),
        "validation_loss": cross_entropy(params, problem.split.validation),
    }


def on_validation_alone(problem: Setup, state: tuple[Any, Any], num_steps: int) -> tuple[Any, Any]:
    """Trains a model on the whole validation set, with no domain at all.

    Args:
        problem: the seed.
        state: the parameters and the optimizer's state.
        num_steps: number of steps to take.

    Returns:
        The state after these steps.
    """
    alone = jax.tree.map(lambda x: x[None], problem.split.validation)
    run = hypergrad.unroll(problem.loss, problem.optimizer, draw=lambda step: alone)
    params, opt_state, _ = run(jnp.ones(1), *state, jnp.arange(num_steps))
    return params, opt_state
