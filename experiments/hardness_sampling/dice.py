"""Computes the training loss (soft Dice plus cross-entropy), Dice scores of regions, and predictions by windows."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax.data.segmentation import REGIONS

__all__ = ["OVERLAP", "SMOOTH", "dice", "losses", "predict", "soft_dice_losses", "window_starts"]

# A constant in the numerator and the denominator of the soft Dice score, with nnU-Net's value.
SMOOTH = 1e-5
# The share of their length that neighbouring windows have in common at least, with nnU-Net's value.
OVERLAP = 0.5


def soft_dice_losses(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns, for each example, the mean over tumour classes of one minus the soft Dice score.

    The loss is ``1 - mean_k (2 sum_v p_vk g_vk + s) / (sum_v p_vk + sum_v g_vk + s)``. Here ``p`` is the softmax of the
    scores, ``g`` the indicator of the label and ``s`` = ``SMOOTH``. The index ``v`` runs over the example's voxels and
    ``k`` over all classes but the background. A class that the patch lacks scores about 0 as soon as it is predicted at
    all, as in nnU-Net.

    Args:
        scores: the class scores ``[n, x, y, z, classes]``.
        labels: the labels, integers ``[n, x, y, z]``.

    Returns:
        The losses ``[n]``, from 0 to 1.
    """
    space = (1, 2, 3)
    found = jax.nn.softmax(scores)[..., 1:]
    truth = jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)[..., 1:]
    both = (found * truth).sum(space)
    score = (2 * both + SMOOTH) / (found.sum(space) + truth.sum(space) + SMOOTH)
    return 1 - score.mean(axis=-1)


def losses(scores: Sequence[jax.Array], labels: jax.Array) -> jax.Array:
    """Returns the training loss of each example: soft Dice loss plus mean cross-entropy, at several resolutions.

    The loss is ``sum_i a_i (Dice loss + cross-entropy)(scores_i, labels_i)``, where ``a_i`` is proportional to ``2^-i``
    and sums to 1, and ``labels_i`` are the labels of every 2^i-th voxel. Nothing is averaged over the batch: the
    sampler needs one hardness for each example.

    Args:
        scores: the class scores ``[n, x / 2^i, y / 2^i, z / 2^i, classes]`` for i = 0, 1, ...
        labels: the labels, integers ``[n, x, y, z]``.

    Returns:
        The losses ``[n]``, a Dice loss plus nats.

    Raises:
        ValueError: scores and labels do not fit.
    """
    shares = 0.5 ** np.arange(len(scores))
    total = jnp.zeros(labels.shape[0])
    for level, (share, score) in enumerate(zip(shares / shares.sum(), scores, strict=True)):
        step = 2**level
        coarse = labels[:, ::step, ::step, ::step]
        if score.shape[:-1] != coarse.shape:
            raise ValueError(f"scores[{level}] must have the shape {(*coarse.shape, 'classes')}, got {score.shape}.")
        entropy = optax.softmax_cross_entropy_with_integer_labels(score, coarse.astype(jnp.int32))
        total += share * (soft_dice_losses(score, coarse) + entropy.mean(axis=(1, 2, 3)))
    return total


def dice(found: jax.Array, truth: jax.Array) -> jax.Array:
    """Returns the Dice score ``2 |A and B| / (|A| + |B|)`` of each region of ``mixjax.data.segmentation.REGIONS``.

    As in the BraTS evaluation, a region that is empty in both labellings scores 1, and a region that is empty in the
    truth alone scores 0.

    Args:
        found: the predicted labels ``[x, y, z]``.
        truth: the true labels ``[x, y, z]``.

    Returns:
        The scores ``[region]``, from 0 to 1.
    """
    scores = []
    for least in REGIONS.values():
        a, b = found >= least, truth >= least
        sizes = a.sum() + b.sum()
        scores.append(jnp.where(sizes > 0, 2 * (a & b).sum() / jnp.maximum(sizes, 1), 1.0))
    return jnp.stack(scores)


def window_starts(size: int, patch: int) -> list[int]:
    """Returns where windows begin along one side: evenly spaced, with an overlap of at least ``OVERLAP``."""
    if patch > size:
        raise ValueError(f"patch must be at most the side of {size} voxels, got {patch}.")
    steps = math.ceil((size - patch) / (patch * (1 - OVERLAP)))
    return np.linspace(0, size - patch, steps + 1).round().astype(int).tolist()


def predict(score: Callable[[jax.Array], jax.Array], image: jax.Array, patch: int) -> jax.Array:
    """Predicts the label of each voxel from windows of the size that the net was trained on.

    Every window adds its class probabilities to its voxels, with a Gaussian weight of standard deviation ``patch / 8``
    about its middle, as in nnU-Net. The label of a voxel is the class with the largest sum.

    Args:
        score: maps a window ``[patch, patch, patch, channels]`` to class scores ``[patch, patch, patch, classes]``.
        image: the image ``[x, y, z, channels]``, no side of which is shorter than ``patch``.
        patch: the number of voxels along each side of a window.

    Returns:
        The labels, int32 ``[x, y, z]``.

    Raises:
        ValueError: ``patch`` exceeds a side of the image.
    """
    sizes, channels = image.shape[:3], image.shape[-1]
    starts = jnp.array(list(itertools.product(*(window_starts(size, patch) for size in sizes))))
    line = np.exp(-0.5 * ((np.arange(patch) - (patch - 1) / 2) / (patch / 8)) ** 2)
    # The floor of 1e-6 keeps a voxel in a window's corner from having next to no weight.
    weight = jnp.asarray(np.maximum(np.einsum("i,j,k->ijk", line, line, line), 1e-6)[..., None], jnp.float32)
    num_classes = jax.eval_shape(score, jax.ShapeDtypeStruct((patch, patch, patch, channels), image.dtype)).shape[-1]

    def add(total, start):
        at, window = (*start, 0), (patch, patch, patch)
        probabilities = jax.nn.softmax(score(jax.lax.dynamic_slice(image, at, (*window, channels))))
        here = jax.lax.dynamic_slice(total, at, (*window, num_classes)) + weight * probabilities
        return jax.lax.dynamic_update_slice(total, here, at), None

    total, _ = jax.lax.scan(add, jnp.zeros((*sizes, num_classes)), starts)
    return jnp.argmax(total, axis=-1)
