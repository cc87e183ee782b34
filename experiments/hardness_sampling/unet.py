"""Defines the 3-D U-Net of paper 004, appendix 8.2.1, with channels last.

Each level has two 3³ convolutions, each followed by instance normalisation and a leaky ReLU. Max-pooling leads down,
and a transposed 2³ convolution up ("linear upsampling with learnable parameters"). Skip connections join the two. Each
of the finest resolutions has a head, for deep supervision.

Where the appendix is silent the net follows nnU-Net: slope 0.01, skip connections by concatenation, He initialisation.
A convolution that a normalisation follows has no bias, since the normalisation would subtract it again.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

__all__ = [
    "ConvNorm",
    "Head",
    "Level",
    "UNet",
    "Up",
    "convolve",
    "convolve_planes",
    "convolve_volumes",
    "he_normal",
    "max_pool",
    "widths",
]

# The slope of the leaky ReLU for negative inputs.
SLOPE = 0.01
# A constant that is added to the variance in the instance normalisation.
EPSILON = 1e-5


def widths(num_levels: int, first: int = 32, maximum: int = 320) -> list[int]:
    """Returns the number of features of each level, which doubles from level to level up to a maximum."""
    return [min(first * 2**level, maximum) for level in range(num_levels)]


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves ``[n, x, y, z, in]`` with ``[3, 3, 3, in, out]`` in 3-D, with zero padding.

    Where the CPU is the default backend, the result is computed by planes (see :func:`convolve_planes`).

    Returns:
        An array ``[n, x, y, z, out]``.
    """
    if jax.default_backend() == "cpu":
        return convolve_planes(x, kernel)
    return convolve_volumes(x, kernel)


def convolve_volumes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes :func:`convolve` as one 3-D convolution."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NHWDC", "HWDIO", "NHWDC"))


@jax.custom_vjp
def convolve_planes(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes :func:`convolve` as a 2-D convolution of all planes along x, with neighbouring planes as channels.

    With few channels XLA's 3-D convolution is ten times slower on a CPU.

    Both gradients are written out by hand. XLA has a fast CPU kernel only for convolutions with channels last, and
    turns the convolutions of the automatic gradient into that form outside of loops only. Inside ``scan`` they would be
    thirty times slower.
    """
    flat = jnp.moveaxis(kernel, 0, 2).reshape(3, 3, -1, kernel.shape[-1])
    return _convolve_2d(_with_neighbours(x), flat).reshape(*x.shape[:-1], -1)


def _with_neighbours(x: jax.Array) -> jax.Array:
    """Returns each plane along x with the planes before and after it as channels, ``[n * x, y, z, 3 * features]``."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    stacked = jnp.concatenate([padded[:, i : i + x.shape[1]] for i in range(3)], axis=-1)
    return stacked.reshape(-1, *stacked.shape[2:])


def _convolve_2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dims)


def _forward(x, kernel):
    return convolve_planes(x, kernel), (x, kernel)


def _backward(saved, dy):
    x, kernel = saved
    # The gradient to x is a convolution of dy with the mirrored kernel.
    dx = convolve_planes(dy, kernel[::-1, ::-1, ::-1].swapaxes(3, 4))
    # The gradient to the kernel is a convolution of x with dy as the kernel: input channels take the place of the
    # examples, and planes that of the channels.
    planes = dy.reshape(-1, *dy.shape[2:])
    dkernel = _convolve_2d(_with_neighbours(x).transpose(3, 1, 2, 0), planes.transpose(1, 2, 0, 3))
    return dx, jnp.moveaxis(dkernel.reshape(3, -1, 3, 3, dy.shape[-1]), 1, 3)


convolve_planes.defvjp(_forward, _backward)


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maxima of blocks of 2³ voxels."""
    n, *sizes, features = x.shape
    blocks = x.reshape(n, *(part for size in sizes for part in (size // 2, 2)), features)
    return blocks.max(axis=(2, 4, 6))


def he_normal(key: jax.Array, params):
    """Draws kernels from normal distributions of variance 2 / inputs; biases and scales stay as they are."""
    # All kernels come from one draw: XLA compiles every draw anew, at a second each.
    leaves, structure = jax.tree.flatten(params)
    kernels = [number for number, leaf in enumerate(leaves) if leaf.ndim > 1]
    ends = np.cumsum([leaves[number].size for number in kernels])
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    for number, part in zip(kernels, parts, strict=True):
        shape = leaves[number].shape
        leaves[number] = jnp.sqrt(2 * shape[-1] / part.size) * part.reshape(shape)
    return jax.tree.unflatten(structure, leaves)


class ConvNorm(nnx.Module):
    """Applies a 3³ convolution, instance normalisation with a learnable scale and bias, and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int):
        """Makes the parameters. A kernel is 0 until ``he_normal`` draws it, as in all parts of the net."""
        self.kernel = nnx.Param(jnp.zeros((3, 3, 3, inputs, outputs)))
        self.scale = nnx.Param(jnp.ones(outputs))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[n, x, y, z, inputs]`` to ``[n, x, y, z, outputs]``."""
        x = convolve(x, self.kernel[...])
        space = (1, 2, 3)
        mean = x.mean(space, keepdims=True)
        variance = jnp.square(x - mean).mean(space, keepdims=True)
        x = (x - mean) * (jax.lax.rsqrt(variance + EPSILON) * self.scale[...]) + self.bias[...]
        return jax.nn.leaky_relu(x, SLOPE)


class Up(nnx.Module):
    """Applies a transposed convolution of size and stride 2: each voxel becomes 2³ voxels, without overlap."""

    def __init__(self, inputs: int, outputs: int):
        """Makes the kernel. There is no bias, since a normalisation follows."""
        self.kernel = nnx.Param(jnp.zeros((inputs, 8 * outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[n, x, y, z, inputs]`` to ``[n, 2x, 2y, 2z, outputs]``."""
        n, *sizes, _ = x.shape
        blocks = (x @ self.kernel[...]).reshape(n, *sizes, 2, 2, 2, -1)
        return blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, *(2 * size for size in sizes), -1)


class Head(nnx.Module):
    """Computes class scores from features, voxel by voxel."""

    def __init__(self, inputs: int, outputs: int):
        """Makes the kernel and a bias for each class."""
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., inputs]`` to ``[..., outputs]``."""
        return x @ self.kernel[...] + self.bias[...]


class Level(nnx.Module):
    """Computes the features and scores of one level of the U-Net and of all levels below it."""

    def __init__(self, inputs: int, features: Sequence[int], num_classes: int, num_heads: int):
        """Builds the level; ``features`` are the numbers of features of this level and of the deeper ones."""
        width, *deeper = features
        self.down = nnx.Sequential(ConvNorm(inputs, width), ConvNorm(width, width))
        self.is_deepest = not deeper
        self.has_head = num_heads > 0
        if deeper:
            self.below = Level(width, deeper, num_classes, num_heads - 1)
            self.up = Up(deeper[0], width)
            self.join = nnx.Sequential(ConvNorm(2 * width, width), ConvNorm(width, width))
        if self.has_head:
            self.head = Head(width, num_classes)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """Returns the features at this resolution, and the scores of the heads at this and at coarser resolutions."""
        x, scores = self.down(x), []
        if not self.is_deepest:
            below, scores = self.below(max_pool(x))
            x = self.join(jnp.concatenate([x, self.up(below)], axis=-1))
        if self.has_head:
            scores = [self.head(x), *scores]
        return x, scores


class UNet(nnx.Module):
    """Computes the class scores of each voxel of an image.

    Args:
        inputs: the number of channels of an image.
        num_classes: the number of labels, background included.
        features: the number of features of each level, the finest level first (see :func:`widths`).
        num_heads: the number of resolutions with a head, the finest ones; from 1 to the number of levels.
        key: draws the kernels.

    Raises:
        ValueError: ``num_heads`` is out of range.
    """

    def __init__(self, inputs: int, num_classes: int, features: Sequence[int], num_heads: int, key: jax.Array):
        """Builds the levels and draws the kernels."""
        if not 1 <= num_heads <= len(features):
            raise ValueError(f"num_heads must be between 1 and the number of levels, {len(features)}, got {num_heads}")
        self.factor = 2 ** (len(features) - 1)
        self.top = Level(inputs, features, num_classes, num_heads)
        nnx.update(self, he_normal(key, nnx.state(self, nnx.Param)))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Returns the scores of each class at each voxel, the finest resolution first.

        Args:
            x: images ``[n, x, y, z, inputs]``, whose sizes are multiples of ``2^(levels - 1)``.

        Returns:
            ``num_heads`` arrays ``[n, x / 2^i, y / 2^i, z / 2^i, num_classes]``.

        Raises:
            ValueError: a size cannot be halved often enough.
        """
        if any(size % self.factor for size in x.shape[1:4]):
            raise ValueError(f"sizes must be multiples of {self.factor}, got {x.shape[1:4]}")
        return self.top(x)[1]
