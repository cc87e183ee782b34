"""Random patches and random changes of 3-D cases: the augmentations that paper 004 lists (appendix 8.2.1), in JAX.

The paper names the augmentations and takes their settings from nnU-Net; probabilities and ranges here are nnU-Net's
defaults. Deviations: elastic deformation is not in the paper's list and not here; the low resolution is interpolated
linearly, not by cubic splines; a rotated patch is filled with background where it leaves the cropped one, since the
patch is cropped before it is turned.

All functions take one example and a key and can be mapped with `jax.vmap`. Images are [x, y, z, channels], standardised
inside the head and exactly 0 outside, which stays so; labels are [x, y, z].
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

FOREGROUND = 1 / 3  # probability that a patch is centred on a voxel of the tumour
ROTATION = 0.2, 30.0  # probability; largest angle about each axis, degrees
ZOOM = 0.2, 0.7, 1.4  # probability; range of the factor by which things grow
BLUR = 0.2, 0.5, 1.0  # probability; range of the standard deviation, voxels
LOW_RESOLUTION = 0.25, 0.5, 1.0  # probability; range of the share of voxels that is kept along each axis
PER_CHANNEL = 0.5  # probability that a blur or a low resolution takes a channel
BRIGHTNESS = 0.15, 0.75, 1.25  # probability; range of the factor
CONTRAST = 0.15, 0.75, 1.25  # probability; range of the factor about the channel's mean
GAMMA = 0.3, 0.7, 1.5  # probability; range of the exponent
INVERTED_GAMMA = 0.1, 0.7, 1.5  # the same, of the image turned upside down
NOISE = 0.1, 0.1  # probability; largest variance


def crop(key: jax.Array, image: jax.Array, label: jax.Array, patch: int) -> tuple[jax.Array, jax.Array]:
    """Cut a random cube out of a case, now and then around the tumour.

    With probability `FOREGROUND` one of the labels 1, 2, 3 is drawn, then one of its voxels, uniformly; the patch is
    centred there, or as near as the case's border allows. Otherwise, or if the case lacks that label, the patch is
    anywhere in the case, uniformly.

    Args:
        key: a typed key.
        image: [x, y, z, channels].
        label: [x, y, z].
        patch: number of voxels along each side, at most the case's shortest side.

    Returns:
        The image [patch, patch, patch, channels] and the label [patch, patch, patch].

    Raises:
        ValueError: if `patch` does not fit.
    """
    if not 1 <= patch <= min(label.shape):
        raise ValueError(f"patch must be from 1 to the case's shortest side {min(label.shape)}, got {patch}")
    which, kind, *draws = jax.random.uniform(key, (8,))
    room = jnp.array(label.shape) - patch
    anywhere = (jnp.array(draws[:3]) * (room + 1)).astype(int)
    left, at = label == 1 + (3 * kind).astype(int), []
    found = left.any()
    for draw in draws[3:]:  # a slab by its share of the voxels, then a row of it, then a voxel
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
    """Rotate and zoom, mirror, change the intensities: `turn`, `mirror` and `recolour`, each with its own key.

    Args:
        key: a typed key.
        image: [n, n, n, channels], 0 outside the head.
        label: [n, n, n].

    Returns:
        The image and the label, of the same shapes and types.
    """
    keys = jax.random.split(key, 3)
    image, label = mirror(keys[1], *turn(keys[0], image, label))
    return recolour(keys[2], image), label


def mirror(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mirror image and label along each axis with probability 1/2."""
    flips = jax.random.bernoulli(key, shape=(3,))
    places = [jnp.where(flip, jnp.arange(n)[::-1], jnp.arange(n)) for flip, n in zip(flips, label.shape, strict=True)]
    mesh = jnp.ix_(*places)
    return image[mesh], label[mesh]


def turn(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotate about the three axes and zoom, about the middle, each with its probability.

    The value at `p` is the one at `R (p - m) / zoom + m`, `m` the middle: linear interpolation for the image, the
    nearest voxel for the label, background outside. Where neither is drawn nothing is interpolated, which saves the
    time unless the function runs under `vmap`.
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
    """Blur, low resolution, brightness, contrast, gamma and noise, each with its probability and per channel."""
    keys = iter(jax.random.split(key, 6))
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
    """A uniform factor for each channel with the given probability for them all, else 1."""
    which, value = jax.random.split(key)
    factors = jax.random.uniform(value, (image.shape[-1],), image.dtype, low, high)
    return jnp.where(jax.random.uniform(which) < probability, factors, 1.0)


def _gamma(key: jax.Array, image: jax.Array, probability: float, low: float, high: float) -> jax.Array:
    """Each channel, scaled to 0..1, to the power of gamma; then back to the mean and the deviation that it had."""
    least, mean, std = image.min((0, 1, 2)), image.mean((0, 1, 2)), image.std((0, 1, 2))
    unit = (image - least) / jnp.maximum(image.max((0, 1, 2)) - least, 1e-7)
    gamma = _factor(key, image, probability, low, high)
    curve = jnp.exp(gamma * jnp.log(jnp.maximum(unit, 1e-7)))
    curve = (curve - curve.mean((0, 1, 2))) / jnp.maximum(curve.std((0, 1, 2)), 1e-7) * std + mean
    return jnp.where(gamma == 1, image, curve)


def _degrade(key: jax.Array, image: jax.Array) -> jax.Array:
    """Gaussian blur, then low resolution: both are linear and work along one axis at a time, so one matrix an axis."""
    n, channels = image.shape[0], image.shape[-1]
    keys = jax.random.split(key, 6)

    def draw(which, taken, value, setting):
        probability, low, high = setting
        take = (jax.random.uniform(which) < probability) & (jax.random.uniform(taken, (channels,)) < PER_CHANNEL)
        return take, jax.random.uniform(value, (channels,), minval=low, maxval=high)

    blurred, sigma = draw(*keys[:3], BLUR)
    coarse, share = draw(*keys[3:], LOW_RESOLUTION)
    places = jnp.arange(n)
    kernel = jnp.exp(-0.5 * ((places[:, None] - places) / sigma[:, None, None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdims=True)
    kernel = jnp.where(blurred[:, None, None], kernel, jnp.eye(n))

    share = jnp.where(coarse, share, 1.0)[:, None]
    position = (places + 0.5) * share - 0.5  # of each voxel, among the voxels kept
    before = jnp.floor(position)
    rest = (position - before)[..., None]

    def kept(number):  # the voxel that is kept under that number
        return jax.nn.one_hot(jnp.clip(jnp.round((number + 0.5) / share - 0.5), 0, n - 1).astype(int), n)

    matrix = ((1 - rest) * kept(before) + rest * kept(before + 1)) @ kernel
    changed = jnp.einsum("cai,cbj,cdk,ijkc->abdc", matrix, matrix, matrix, image, optimize="optimal")
    return jnp.where(blurred | coarse, changed, image)
