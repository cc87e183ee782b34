"""Prepares MNIST with a rare class: the settings, the images, a seed's training set, and samples that stand for it.

A *position* is an index into the ``n`` kept training examples, of which the last ``num_rare`` are the rare class.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardness_sampling import classifiers
from mixjax import data as datasets
from mixjax.runner.loading import load_once

__all__ = ["Images", "Problem", "Sample", "Split", "load", "num_kept", "num_rare", "split"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Holds the settings that every experiment on imbalanced MNIST has.

    Attributes:
        model: the name of the classifier.
        rare_class: the digit of which only few training images are kept.
        keep: the share of the rare class's images that is kept.
        batch_size: ``b``, the number of images in a batch.
        learning_rate: the learning rate of plain SGD.
        num_steps: ``T``, the number of steps.
        record_every: the number of steps between two evaluations.
        probe_size: the number of training examples on which losses are measured: all of the rare class, and others
            drawn at random.
        test_size: the number of test examples: all of the rare class, and others drawn at random. The whole test set
            has 10,000.
    """

    model: classifiers.Name = "mlp"
    rare_class: int = 3
    keep: float = 0.01
    batch_size: int = 64
    learning_rate: float = 0.01
    num_steps: int = 8400
    record_every: int = 100
    probe_size: int = 2000
    test_size: int = 10_000


class Images(NamedTuple):
    """Holds MNIST, with the indices of the rare class and those of the other classes.

    Attributes:
        train: the training images, ``[60000, 784]``.
        train_labels: their labels, ``[60000]``.
        train_rare: the indices of the training images of the rare class.
        train_others: the indices of the other training images.
        test: the test images, ``[10000, 784]``.
        test_labels: their labels, ``[10000]``.
        test_rare: the indices of the test images of the rare class.
        test_others: the indices of the other test images.
    """

    train: Any
    train_labels: Any
    train_rare: Any
    train_others: Any
    test: Any
    test_labels: Any
    test_rare: Any
    test_others: Any


class Sample(NamedTuple):
    """Holds examples that stand for a whole set: all of its rare class, and a random part of the others.

    Attributes:
        ids: the examples, ``[m]``, the rare class last.
        weights: the share of the set that each example stands for, ``[m]``; they sum to 1.
    """

    ids: jax.Array
    weights: jax.Array

    def mean(self, values):
        """Estimates the set's mean of some values ``[m]``."""
        return jnp.dot(self.weights, values)

    def std(self, values):
        """Estimates the set's standard deviation of some values ``[m]``."""
        return jnp.sqrt(self.mean(jnp.square(values - self.mean(values))))

    def correlation(self, a, b):
        """Estimates the set's correlation of two values ``[m]``; it is 0 where one of them is constant."""
        a, b = a - self.mean(a), b - self.mean(b)
        scale = self.mean(a * a) * self.mean(b * b)
        # Both branches of a `where` are computed: the inner one keeps the hidden branch from dividing by zero.
        return jnp.where(scale > 0, self.mean(a * b) / jnp.sqrt(jnp.where(scale > 0, scale, 1.0)), 0.0)


class Split(NamedTuple):
    """Holds one seed's training set and the examples on which it is evaluated.

    Attributes:
        kept: the index into the training images of each position, ``[n]``.
        probe: the positions that stand for the training set.
        test: the indices into the test images that stand for the test set.
    """

    kept: jax.Array
    probe: Sample
    test: Sample


@load_once
def load(rare_class: int) -> Images:
    """Loads MNIST, and finds the images of the rare class and those of the others."""
    images = datasets.load("mnist")

    def where(mask):
        return np.flatnonzero(mask).astype(np.int32)

    return Images(
        train=images.train_images,
        train_labels=images.train_labels,
        train_rare=where(images.train_labels == rare_class),
        train_others=where(images.train_labels != rare_class),
        test=images.test_images,
        test_labels=images.test_labels,
        test_rare=where(images.test_labels == rare_class),
        test_others=where(images.test_labels != rare_class),
    )


def num_rare(problem: Problem, images: Images) -> int:
    """Returns the number of training examples of the rare class that are kept."""
    return round(problem.keep * len(images.train_rare))


def num_kept(problem: Problem, images: Images) -> int:
    """Returns ``n``, the number of training examples that are kept."""
    return len(images.train_others) + num_rare(problem, images)


def _stand_in(key, rare, others, size):
    """Draws a sample of ``size`` examples that stands for the set of ``others`` and ``rare``."""
    part = min(size - len(rare), len(others))
    # An example of the others stands for as many as were left out; one of the rare class for itself.
    total = len(rare) + len(others)
    weights = np.full(part + len(rare), 1 / total, np.float32)
    weights[:part] *= len(others) / part
    return Sample(jnp.concatenate([jax.random.permutation(key, others)[:part], rare]), jnp.asarray(weights))


def split(key: jax.Array, problem: Problem, images: Images) -> Split:
    """Draws which examples of the rare class are kept, and on which examples training is evaluated."""
    rare_key, probe_key, test_key = jax.random.split(key, 3)
    rare = jax.random.permutation(rare_key, images.train_rare)[: num_rare(problem, images)]
    kept = jnp.concatenate([images.train_others, rare])
    positions = jnp.arange(len(kept))
    probe = _stand_in(probe_key, positions[-len(rare) :], positions[: -len(rare)], problem.probe_size)
    return Split(kept, probe, _stand_in(test_key, images.test_rare, images.test_others, problem.test_size))
