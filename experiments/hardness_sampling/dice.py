"""Soft Dice plus cross-entropy for training, Dice per region for testing, and prediction by sliding window."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mixjax.data.segmentation import REGIONS

SMOOTH = 1e-5  # nnU-Net's, in numerator and denominator of the soft Dice score
OVERLAP = 0.5  # of neighbouring windows, nnU-Net's


def soft_dice_losses(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over tumour classes of one minus the soft Dice score, for each example.

    ``1 - mean_k (2 sum_v p_vk g_vk + s) / (sum_v p_vk + sum_v g_vk + s)``, with ``p`` the softmax of the scores, ``g``
    the label's indicator, ``v`` the example's voxels, ``k`` the classes but background and ``s`` = ``SMOOTH``. A class
    that the patch lacks scores about 0 as soon as it is predicted at all; so it is in nnU-Net.

    Args:
        scores: ``[n, x, y, z, classes]``.
        labels: integers ``[n, x, y, z]``.

    Returns:
        ``[n]``, from 0 to 1.
    """
    space = (1, 2, 3)
    found = jax.nn.softmax(scores)[..., 1:]
    truth = jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype)[..., 1:]
    both = (found * truth).sum(space)
    score = (2 * both + SMOOTH) / (found.sum(space) + truth.sum(space) + SMOOTH)
    return 1 - score.mean(axis=-1)


def losses(scores: Sequence[jax.Array], labels: jax.Array) -> jax.Array:
    """Soft Dice loss plus mean cross-entropy, over the resolutions of deep supervision: one number an example.

    ``sum_i a_i (Dice loss + cross-entropy)(scores_i, labels_i)`` with ``a_i`` proportional to ``2^-i`` and of sum 1;
    ``labels_i`` are every 2^i-th voxel's. Nothing is reduced over the batch, as the hardness of an example asks.

    Args:
        scores: ``[n, x / 2^i, y / 2^i, z / 2^i, classes]`` for i = 0, 1, ...
        labels: integers ``[n, x, y, z]``.

    Returns:
        ``[n]``, the Dice loss plus nats.

    Raises:
        ValueError: scores and labels do not fit.
    """
    shares = 0.5 ** np.arange(len(scores))
    total = jnp.zeros(labels.shape[0])
    for level, (share, score) in enumerate(zip(shares / shares.sum(), scores, strict=True)):
        step = 2**level
        coarse = labels[:, ::step, ::step, ::step]
        if score.shape[:-1] != coarse.shape:
            raise ValueError(f"scores {level} must be {(*coarse.shape, 'classes')}, got {score.shape}")
        entropy = optax.softmax_cross_entropy_with_integer_labels(score, coarse.astype(jnp.int32))
        total += share * (soft_dice_losses(score, coarse) + entropy.mean(axis=(1, 2, 3)))
    return total


def dice(found: jax.Array, truth: jax.Array) -> jax.Array:
    """The Dice score of each region of ``mixjax.data.segmentation.REGIONS``: ``2 |A and B| / (|A| + |B|)``.

    As in the BraTS evaluation, a region that is empty in both scores 1, and one that is empty in the truth alone 0.

    Args:
        found: labels ``[x, y, z]``.
        truth: labels ``[x, y, z]``.

    Returns:
        ``[region]``, from 0 to 1.
    """
    scores = []
    for least in REGIONS.values():
        a, b = found >= least, truth >= least
        sizes = a.sum() + b.sum()
        scores.append(jnp.where(sizes > 0, 2 * (a & b).sum() / jnp.maximum(sizes, 1), 1.0))
    return jnp.stack(scores)


def window_starts(size: int, patch: int) -> list[int]:
    """Where windows begin along one side: evenly spaced, neighbours sharing at least ``OVERLAP`` of their length."""
    if patch > size:
        raise ValueError(f"a window of {patch} does not fit into {size} voxels")
    steps = math.ceil((size - patch) / (patch * (1 - OVERLAP)))
    return np.linspace(0, size - patch, steps + 1).round().astype(int).tolist()


def predict(score: Callable[[jax.Array], jax.Array], image: jax.Array, patch: int) -> jax.Array:
    """The label of each voxel, from windows of the size the net was trained on.

    Each window's class probabilities are added up with a Gaussian weight of deviation ``patch / 8`` about its middle,
    as in nnU-Net; the label is the class with the largest sum.

    Args:
        score: ``[patch, patch, patch, channels]`` to class scores ``[patch, patch, patch, classes]``.
        image: ``[x, y, z, channels]``, no side shorter than ``patch``.
        patch: voxels along each side of a window.

    Returns:
        int32 ``[x, y, z]``.

    Raises:
        ValueError: a window that does not fit.
    """
    sizes, channels = image.shape[:3], image.shape[-1]
    starts = jnp.array(list(itertools.product(*(window_starts(size, patch) for size in sizes))))
    line = np.exp(-0.5 * ((np.arange(patch) - (patch - 1) / 2) / (patch / 8)) ** 2)
    weight = jnp.asarray(np.maximum(np.einsum("i,j,k->ijk", line, line, line), 1e-6)[..., None], jnp.float32)
    num_classes = jax.eval_shape(score, jax.ShapeDtypeStruct((patch, patch, patch, channels), image.dtype)).shape[-1]

    def add(total, start):
        at, window = (*start, 0), (patch, patch, patch)
        probabilities = jax.nn.softmax(score(jax.lax.dynamic_slice(image, at, (*window, channels))))
        here = jax.lax.dynamic_slice(total, at, (*window, num_classes)) + weight * probabilities
        return jax.lax.dynamic_update_slice(total, here, at), None

    total, _ = jax.lax.scan(add, jnp.zeros((*sizes, num_classes)), starts)
    return jnp.argmax(total, axis=-1)
