"""Builds the classifiers of the imbalanced MNIST experiments, as pure functions of their parameters and statistics.

========  ========================================================  =======
name      network                                                   weights
========  ========================================================  =======
``mlp``   layers of 784, 256 and 10 units                           203,530
``cnn``   two convolutions and two dense layers                      55,338
``wrn``   Wide Residual Network 16-1 of paper 004, appendix 8.1     174,778
========  ========================================================  =======
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

__all__ = ["CNN", "MLP", "Block", "Model", "Name", "WideResNet", "build", "num_weights", "patches"]

Name = Literal["mlp", "cnn", "wrn"]
SIDE, NUM_CLASSES = 28, 10
# The mean and standard deviation of MNIST's training pixels. Models without normalisation layers standardise by them.
MEAN, STD = 0.1307, 0.3081


class MLP(nnx.Module):
    """Classifies images with one hidden layer of ReLUs."""

    def __init__(self, rngs: nnx.Rngs):
        """Draws the weights by Flax's defaults: LeCun normal, and biases of zero."""
        self.hidden = nnx.Linear(SIDE * SIDE, 256, rngs=rngs)
        self.out = nnx.Linear(256, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        """Returns class scores ``[n, 10]`` of images ``[n, 784]``."""
        return self.out(nnx.relu(self.hidden((images - MEAN) / STD)))


def patches(x):
    """Returns the 3 x 3 neighbourhoods of every second pixel, ``[n, h, w, c] -> [n, h / 2, w / 2, 9 c]``."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    return jnp.concatenate([x[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)], axis=-1)


class CNN(nnx.Module):
    """Classifies images with two 3 x 3 convolutions of stride 2 and a layer of 32 ReLUs.

    Each convolution is written as a linear map of patches: on a CPU, XLA's own is many times slower inside ``scan``.
    """

    def __init__(self, rngs: nnx.Rngs):
        """Draws the weights by Flax's defaults; the convolutions have 16 and 32 channels."""
        self.first = nnx.Linear(9, 16, rngs=rngs)
        self.second = nnx.Linear(9 * 16, 32, rngs=rngs)
        self.hidden = nnx.Linear((SIDE // 4) ** 2 * 32, 32, rngs=rngs)
        self.out = nnx.Linear(32, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        """Returns class scores ``[n, 10]`` of images ``[n, 784]``."""
        x = (images.reshape(-1, SIDE, SIDE, 1) - MEAN) / STD
        x = nnx.relu(self.first(patches(x)))
        x = nnx.relu(self.second(patches(x)))
        return self.out(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


def _conv(inputs, outputs, size, stride, rngs):
    # The papers on residual networks draw their kernels so.
    init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
    return nnx.Conv(inputs, outputs, (size, size), (stride, stride), use_bias=False, kernel_init=init, rngs=rngs)


class Block(nnx.Module):
    """Applies batch normalisation, ReLU and convolution twice, and adds the input: a residual block.

    Where the shape changes, the shortcut is a 1 x 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, momentum: float, rngs: nnx.Rngs):
        """Builds the layers; ``momentum`` is that of :class:`WideResNet`."""
        self.norm1 = nnx.BatchNorm(inputs, momentum=momentum, rngs=rngs)
        self.conv1 = _conv(inputs, outputs, 3, stride, rngs)
        self.norm2 = nnx.BatchNorm(outputs, momentum=momentum, rngs=rngs)
        self.conv2 = _conv(outputs, outputs, 3, 1, rngs)
        self.shortcut = None if inputs == outputs else _conv(inputs, outputs, 1, stride, rngs)

    def __call__(self, x, train):
        """Returns the features after the block; ``train`` normalises by the batch's own statistics."""
        y = nnx.relu(self.norm1(x, use_running_average=not train))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = nnx.relu(self.norm2(self.conv1(y), use_running_average=not train))
        return shortcut + self.conv2(y)


class WideResNet(nnx.Module):
    """Classifies images with the Wide Residual Network 16-1.

    It has three groups of two blocks, with 16, 32 and 64 channels on 28, 14 and 7 pixels a side.
    """

    GROUPS = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))

    def __init__(self, rngs: nnx.Rngs, momentum: float = 0.9):
        """Builds the layers.

        Args:
            rngs: the source of the weights.
            momentum: the weight of the old running statistics in the new ones. With 0 they are the statistics of the
                last training batch.
        """
        self.first = _conv(1, 16, 3, 1, rngs)
        for number, (inputs, outputs, stride) in enumerate(self.GROUPS):
            setattr(self, f"block{number}", Block(inputs, outputs, stride, momentum, rngs))
        self.norm = nnx.BatchNorm(64, momentum=momentum, rngs=rngs)
        self.out = nnx.Linear(64, NUM_CLASSES, rngs=rngs)

    def __call__(self, images, train=False):
        """Returns class scores ``[n, 10]`` of images ``[n, 784]``; ``train`` normalises by the batch's statistics."""
        x = self.first(images.reshape(-1, SIDE, SIDE, 1))
        for number in range(len(self.GROUPS)):
            x = getattr(self, f"block{number}")(x, train)
        x = nnx.relu(self.norm(x, use_running_average=not train))
        return self.out(x.mean(axis=(1, 2)))


class Model(NamedTuple):
    """Holds a classifier as pure functions.

    The statistics ``stats`` are the running statistics of batch normalisation. They are empty in a model without it.

    Attributes:
        init: ``init(key) -> params, stats`` draws the first parameters.
        train_losses: ``train_losses(params, stats, images, labels) -> losses [n], stats`` returns losses in nats,
            normalised by the batch's own statistics, and the new running statistics.
        losses: ``losses(params, stats, images, labels) -> losses [n], right [n]`` returns losses in nats and which
            labels are predicted, normalised by ``stats``.
        refresh: ``refresh(params, stats, images) -> stats`` measures the statistics of these images. It is None in a
            model without batch normalisation.
    """

    init: Any
    train_losses: Any
    losses: Any
    refresh: Any


def build(name: Name) -> Model:
    """Builds the classifier of a name."""
    cls = {"mlp": MLP, "cnn": CNN, "wrn": WideResNet}[name]
    normalised = name == "wrn"

    def graphdef(**kwargs):
        return nnx.graphdef(nnx.eval_shape(lambda: cls(nnx.Rngs(0), **kwargs)))

    usual = graphdef()
    # With a momentum of 0 the running statistics are those of the last batch, which is what `refresh` measures.
    forgetful = graphdef(momentum=0.0) if normalised else None

    def init(key):
        _, params, stats = nnx.split(cls(nnx.Rngs(params=key)), nnx.Param, nnx.BatchStat)
        return params, stats

    def scores(graphdef, params, stats, images, train):
        # Flax writes new statistics into the tree it is given: this copy keeps the caller's tree as it was.
        params, stats = jax.tree.map(lambda leaf: leaf, (params, stats))
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
    """Returns the number of trained weights."""
    params, _ = jax.eval_shape(build(name).init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))
