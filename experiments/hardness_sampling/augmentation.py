"""Cuts random patches out of 3-D cases, and changes them at random as paper 004 lists (appendix 8.2.1).

The paper names the augmentations and takes their settings from nnU-Net. Probabilities and ranges here are nnU-Net's
defaults, with three deviations:

- There is no elastic deformation, which is not in the paper's list.
- The low resolution is interpolated linearly, not by cubic splines.
- A rotated patch has background where it leaves the cropped patch, since it is cropped before it is turned.

All functions take one example and a key, and can be mapped with ``jax.vmap``. Images are ``[x, y, z, channels]``,
standardised inside the head and exactly 0 outside; the outside stays 0. Labels are ``[x, y, z]``.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

__all__ = ["augment", "crop", "mirror", "recolour", "turn"]

# The probability that a patch is centred on a voxel of the tumour.
FOREGROUND = 1 / 3
# Rotation: the probability, and the largest angle about each axis, in degrees.
ROTATION = 0.2, 30.0
# Zoom: the probability, and the range of the factor by which things grow.
ZOOM = 0.2, 0.7, 1.4
# Blur: the probability, and the range of the standard deviation, in voxels.
BLUR = 0.2, 0.5, 1.0
# Low resolution: the probability, and the range of the share of voxels that is kept along each axis.
LOW_RESOLUTION = 0.25, 0.5, 1.0
# The probability that a blur or a low resolution, if drawn, changes a channel.
PER_CHANNEL = 0.5
# Brightness: the probability, and the range of the factor.
BRIGHTNESS = 0.15, 0.75, 1.25
# Contrast: the probability, and the range of the factor on the difference from the channel's mean.
CONTRAST = 0.15, 0.75, 1.25
# Gamma: the probability, and the range of the exponent.
GAMMA = 0.3, 0.7, 1.5
# Gamma of the image with its intensities turned upside down: the same.
INVERTED_GAMMA = 0.1, 0.7, 1.5
# Noise: the probability, and the largest variance.
NOISE = 0.1, 0.1


def crop(key: jax.Array, image: jax.Array, label: jax.Array, patch: int) -> tuple[jax.Array, jax.Array]:
    """Cuts a random cube out of a case, now and then around the tumour.

    With probability ``FOREGROUND`` one of the labels 1, 2, 3 is drawn, and then one of its voxels, uniformly. The patch
    is centred there, or as near as the case's border allows. Otherwise, or if the case lacks that label, the patch is
    anywhere in the case, uniformly.

    Args:
        key: a typed key.
        image: the image ``[x, y, z, channels]``.
        label: the labels ``[x, y, z]``.
        patch: the number of voxels along each side, at most the case's shortest side.

    Returns:
        The image ``[patch, patch, patch, channels]`` and the labels ``[patch, patch, patch]``.

    Raises:
        ValueError: ``patch`` does not fit.
    """
    if not 1 <= patch <= min(label.shape):
        raise ValueError(f"patch must be from 1 to the case's shortest side {min(label.shape)}, got {patch}.")
    which, kind, *draws = jax.random.uniform(key, (8,))
    room = jnp.array(label.shape) - patch
    anywhere = (jnp.array(draws[:3]) * (room + 1)).astype(int)
    left, at = label == 1 + (3 * kind).astype(int), []
    found = left.any()
    # A voxel is drawn in three steps: a slab by its share of the label's voxels, then a row of it, then a voxel. The
    # number of voxels is not known when the program is compiled, so that a list of them has no shape.
    for draw in draws[3:]:
        total = jnp.cumsum(left.reshape(len(left), -1).sum(-1))
        at.append(jnp.searchsorted(total, draw * total[-1], side="right"))
        left = left[at[-1]]
    centred = jnp.clip(jnp.array(at) - patch // 2, 0, room)
    start = jnp.where(found & (which < FOREGROUND), centred, anywhere)
    sides = (patch,) * 3
    return (
        jax.lax.dynamic_slice(image, (*start, 0), (*sides, image.shape[-1])),
        jax.lax.dynamic_slice(label, tuple(start), sides),
    )


def augment(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotates and zooms a patch, mirrors it, and changes its intensities.

    Args:
        key: a typed key.
        image: the image ``[n, n, n, channels]``, 0 outside the head.
        label: the labels ``[n, n, n]``.

    Returns:
        The image and the labels, of the same shapes and types.
    """
    turn_key, mirror_key, recolour_key = jax.random.split(key, 3)
    image, label = turn(turn_key, image, label)
    image, label = mirror(mirror_key, image, label)
    return recolour(recolour_key, image), label


def mirror(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mirrors the image and the labels along each axis with probability 1/2."""
    flips = jax.random.bernoulli(key, shape=(3,))
    places = [jnp.where(flip, jnp.arange(n)[::-1], jnp.arange(n)) for flip, n in zip(flips, label.shape, strict=True)]
    mesh = jnp.ix_(*places)
    return image[mesh], label[mesh]


def turn(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotates a patch about the three axes and zooms it, both about the middle, each with its probability.

    The new value at ``p`` is the old one at ``R (p - m) / zoom + m``, where ``m`` is the middle. The image is
    interpolated linearly, a label is that of the nearest voxel, and outside there is background.

    Where neither a rotation nor a zoom is drawn, nothing is interpolated. This saves the time unless the function runs
    under ``vmap``, which computes both branches of a ``cond``.
    """
    keys = jax.random.split(key, 4)
    rotate, zoom = jax.random.uniform(keys[0], (2,)) < jnp.array([ROTATION[0], ZOOM[0]])
    angles = jnp.deg2rad(jax.random.uniform(keys[1], (3,), minval=-ROTATION[1], maxval=ROTATION[1])) * rotate
    factor = jnp.where(zoom, jax.random.uniform(keys[2], minval=ZOOM[1], maxval=ZOOM[2]), 1.0)

    def resample(image, label):
        matrix = jnp.eye(3) / factor
        for angle, (a, b) in zip(angles, ((0, 1), (0, 2), (1, 2)), strict=True):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            plane = jnp.eye(3).at[a, a].set(cos).at[b, b].set(cos).at[a, b].set(-sin).at[b, a].set(sin)
            matrix = matrix @ plane
        middle = (jnp.array(label.shape, jnp.float32) - 1)[:, None, None, None] / 2
        points = jnp.tensordot(matrix, jnp.indices(label.shape) - middle, 1) + middle
        turned = jax.vmap(lambda channel: map_coordinates(channel, points, order=1), -1, -1)(image)
        return turned.astype(image.dtype), map_coordinates(label, points, order=0)

    return jax.lax.cond(rotate | zoom, resample, lambda *same: same, image, label)


def recolour(key: jax.Array, image: jax.Array) -> jax.Array:
    """Blurs, coarsens, brightens, changes contrast and gamma, and adds noise, each with its probability."""
    keys = iter(jax.random.split(key, 6))
    # Every change below may move the background away from 0; it is put back at the end.
    head = (image != 0).any(-1, keepdims=True)
    image = _degrade(next(keys), image)
    image = image * _factor(next(keys), image, *BRIGHTNESS)
    low, high, mean = image.min((0, 1, 2)), image.max((0, 1, 2)), image.mean((0, 1, 2))
    image = jnp.clip(mean + (image - mean) * _factor(next(keys), image, *CONTRAST), low, high)
    image = -_gamma(next(keys), -image, *INVERTED_GAMMA)
    image = _gamma(next(keys), image, *GAMMA)
    which, variance, noise = jax.random.split(next(keys), 3)
    scale = jnp.sqrt(jax.random.uniform(variance, maxval=NOISE[1])) * (jax.random.uniform(which) < NOISE[0])
    return head * (image + scale * jax.random.normal(noise, image.shape, image.dtype))


def _factor(key: jax.Array, image: jax.Array, probability: float, low: float, high: float) -> jax.Array:
    """Draws a factor for each channel, with the given probability for them all, or returns factors of 1."""
    which, value = jax.random.split(key)
    factors = jax.random.uniform(value, (image.shape[-1],), image.dtype, low, high)
    return jnp.where(jax.random.uniform(which) < probability, factors, 1.0)


def _gamma(key: jax.Array, image: jax.Array, probability: float, low: float, high: float) -> jax.Array:
    """Raises each channel, scaled to 0..1, to the power of gamma, and gives it back its mean and deviation."""
    least, mean, std = image.min((0, 1, 2)), image.mean((0, 1, 2)), image.std((0, 1, 2))
    unit = (image - least) / jnp.maximum(image.max((0, 1, 2)) - least, 1e-7)
    gamma = _factor(key, image, probability, low, high)
    curve = jnp.exp(gamma * jnp.log(jnp.maximum(unit, 1e-7)))
    curve = (curve - curve.mean((0, 1, 2))) / jnp.maximum(curve.std((0, 1, 2)), 1e-7) * std + mean
    # Where no gamma is drawn, the image stays exactly as it was, without the rounding of the detour.
    return jnp.where(gamma == 1, image, curve)


def _degrade(key: jax.Array, image: jax.Array) -> jax.Array:
    """Blurs, then coarsens: both are linear and work along one axis at a time, so that one matrix serves each axis."""
    n, channels = image.shape[0], image.shape[-1]
    keys = jax.random.split(key, 6)

    def draw(keys, setting):
        which, taken, value = keys
        probability, low, high = setting
        take = (jax.random.uniform(which) < probability) & (jax.random.uniform(taken, (channels,)) < PER_CHANNEL)
        return take, jax.random.uniform(value, (channels,), minval=low, maxval=high)

    blurred, sigma = draw(keys[:3], BLUR)
    coarse, share = draw(keys[3:], LOW_RESOLUTION)
    places = jnp.arange(n)
    kernel = jnp.exp(-0.5 * ((places[:, None] - places) / sigma[:, None, None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdims=True)
    kernel = jnp.where(blurred[:, None, None], kernel, jnp.eye(n))

    share = jnp.where(coarse, share, 1.0)[:, None]
    # The position of each voxel, counted in the voxels that are kept.
    position = (places + 0.5) * share - 0.5
    before = jnp.floor(position)
    rest = (position - before)[..., None]

    def kept(number):
        # A row that selects the voxel which is kept under that number.
        return jax.nn.one_hot(jnp.clip(jnp.round((number + 0.5) / share - 0.5), 0, n - 1).astype(int), n)

    matrix = ((1 - rest) * kept(before) + rest * kept(before + 1)) @ kernel
    changed = jnp.einsum("cai,cbj,cdk,ijkc->abdc", matrix, matrix, matrix, image, optimize="optimal")
    return jnp.where(blurred | coarse, changed, image)
