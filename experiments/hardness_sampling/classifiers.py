"""The classifiers of the imbalanced MNIST experiment, as pure functions of their parameters and statistics.

Sizes: ``mlp`` 784-256-10 (203,530 weights), ``cnn`` two convolutions and two dense layers (55,338), ``wrn`` the Wide
Residual Network 16-1 of paper 004, appendix 8.1 (174,778).
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

Name = Literal["mlp", "cnn", "wrn"]
SIDE, NUM_CLASSES = 28, 10
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, by which the models without normalisation standardise


class MLP(nnx.Module):
    """One hidden layer of ReLUs."""

    def __init__(self, rngs: nnx.Rngs):
        """Flax's default initialisation (LeCun normal, biases zero), here and below."""
        self.hidden = nnx.Linear(SIDE * SIDE, 256, rngs=rngs)
        self.out = nnx.Linear(256, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        """Class scores ``[n, 10]`` of images ``[n, 784]``."""
        return self.out(nnx.relu(self.hidden((images - MEAN) / STD)))


def patches(x):
    """The 3 x 3 neighbourhoods of every second pixel, ``[n, h, w, c] -> [n, h / 2, w / 2, 9 c]``."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    return jnp.concatenate([x[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)], axis=-1)


class CNN(nnx.Module):
    """Two 3 x 3 convolutions of stride 2, then 32 ReLUs.

    A convolution is a linear map of patches here: on a CPU, XLA's own is many times slower inside ``scan``.
    """

    def __init__(self, rngs: nnx.Rngs):
        """16 and 32 channels."""
        self.first = nnx.Linear(9, 16, rngs=rngs)
        self.second = nnx.Linear(9 * 16, 32, rngs=rngs)
        self.hidden = nnx.Linear((SIDE // 4) ** 2 * 32, 32, rngs=rngs)
        self.out = nnx.Linear(32, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        """Class scores ``[n, 10]`` of images ``[n, 784]``."""
        x = (images.reshape(-1, SIDE, SIDE, 1) - MEAN) / STD
        x = nnx.relu(self.first(patches(x)))
        x = nnx.relu(self.second(patches(x)))
        return self.out(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


def _conv(inputs, outputs, size, stride, rngs):
    init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")  # that of the residual networks' papers
    return nnx.Conv(inputs, outputs, (size, size), (stride, stride), use_bias=False, kernel_init=init, rngs=rngs)


class Block(nnx.Module):
    """Pre-activation residual block: BN-ReLU-conv twice; a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, momentum: float, rngs: nnx.Rngs):
        """``momentum``: see ``WideResNet``."""
        self.norm1 = nnx.BatchNorm(inputs, momentum=momentum, rngs=rngs)
        self.conv1 = _conv(inputs, outputs, 3, stride, rngs)
        self.norm2 = nnx.BatchNorm(outputs, momentum=momentum, rngs=rngs)
        self.conv2 = _conv(outputs, outputs, 3, 1, rngs)
        self.shortcut = None if inputs == outputs else _conv(inputs, outputs, 1, stride, rngs)

    def __call__(self, x, train):
        """Features after the block."""
        y = nnx.relu(self.norm1(x, use_running_average=not train))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = nnx.relu(self.norm2(self.conv1(y), use_running_average=not train))
        return shortcut + self.conv2(y)


class WideResNet(nnx.Module):
    """WRN-16-1: three groups of two blocks, of 16, 32 and 64 channels, on 28, 14 and 7 pixels a side."""

    GROUPS = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))

    def __init__(self, rngs: nnx.Rngs, momentum: float = 0.9):
        """``momentum`` of the running statistics: 0 makes them those of the last training batch."""
        self.first = _conv(1, 16, 3, 1, rngs)
        for number, (inputs, outputs, stride) in enumerate(self.GROUPS):
            setattr(self, f"block{number}", Block(inputs, outputs, stride, momentum, rngs))
        self.norm = nnx.BatchNorm(64, momentum=momentum, rngs=rngs)
        self.out = nnx.Linear(64, NUM_CLASSES, rngs=rngs)

    def __call__(self, images, train=False):
        """Class scores ``[n, 10]`` of images ``[n, 784]``; ``train`` normalises by the batch's own statistics."""
        x = self.first(images.reshape(-1, SIDE, SIDE, 1))
        for number in range(len(self.GROUPS)):
            x = getattr(self, f"block{number}")(x, train)
        x = nnx.relu(self.norm(x, use_running_average=not train))
        return self.out(x.mean(axis=(1, 2)))


class Model(NamedTuple):
    """A classifier as pure functions.

    Attributes:
        init: ``init(key) -> params, stats``; ``stats`` are batch normalisation's running statistics, empty without it.
        train_losses: ``train_losses(params, stats, images, labels) -> [n] nats, new stats``, normalised by the batch.
        losses: ``losses(params, stats, images, labels) -> [n] nats, [n] right``, normalised by ``stats``.
        refresh: ``refresh(params, stats, images) -> stats``, those of these images; None where there are none.
    """

    init: Any
    train_losses: Any
    losses: Any
    refresh: Any


def build(name: Name) -> Model:
    """The classifier of that name."""
    cls = {"mlp": MLP, "cnn": CNN, "wrn": WideResNet}[name]
    normalised = name == "wrn"

    def graphdef(**kwargs):
        return nnx.graphdef(nnx.eval_shape(lambda: cls(nnx.Rngs(0), **kwargs)))

    usual, forgetful = graphdef(), graphdef(momentum=0.0) if normalised else None

    def init(key):
        _, params, stats = nnx.split(cls(nnx.Rngs(params=key)), nnx.Param, nnx.BatchStat)
        return params, stats

    def scores(graphdef, params, stats, images, train):
        params, stats = jax.tree.map(lambda leaf: leaf, (params, stats))  # Flax writes into its copies
        model = nnx.merge(graphdef, params, stats)
        found = model(images, train) if normalised else model(images)
        return found, nnx.state(model, nnx.BatchStat)

    def train_losses(params, stats, images, labels):
        found, stats = scores(usual, params, stats, images, True)
        return optax.softmax_cross_entropy_with_integer_labels(found, labels), stats

    def losses(params, stats, images, labels):
        found, _ = scores(usual, params, stats, images, False)
        right = jnp.argmax(found, axis=-1) == labels
        return optax.softmax_cross_entropy_with_integer_labels(found, labels), right

    def refresh(params, stats, images):
        return scores(forgetful, params, stats, images, True)[1]

    return Model(init, train_losses, losses, refresh if normalised else None)


def num_weights(name: Name) -> int:
    """Number of trained weights."""
    params, _ = jax.eval_shape(build(name).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))
