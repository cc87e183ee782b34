"""Defines the record of 3-D segmentation cases and its nested regions, and resamples volumes to a cubic grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires

__all__ = ["CHANNELS", "REGIONS", "Cases", "bounding_box", "ndimage_for", "standardise", "to_cube"]

CHANNELS = ("t1", "t1ce", "t2", "flair")
"""The four contrasts, in the order of the images' last axis; "t1ce" is T1 after a contrast agent."""

REGIONS = {"whole": 1, "core": 2, "enhancing": 3}
"""The nested tumour regions that are scored: region ``name`` is ``labels >= REGIONS[name]``."""

# The share of the cube's side that is left empty at either end of the head's longest side.
_MARGIN = 0.06


class Cases(NamedTuple):
    """Holds segmentation cases on one cubic grid, as NumPy arrays.

    Attributes:
        images: float32 [n, x, y, z, 4], the channels of :data:`CHANNELS`; mean 0 and standard deviation 1 inside the
            head for each case and channel, 0 outside.
        labels: int8 [n, x, y, z]: 0 background, 1 oedema, 2 non-enhancing core, 3 enhancing core. The regions of
            :data:`REGIONS` are nested: whole = 1 or more, core = 2 or more, enhancing = 3.
        centres: int32 [n], the centre that each case comes from.
    """

    images: np.ndarray
    labels: np.ndarray
    centres: np.ndarray


def ndimage_for(user: str) -> Any:
    """Imports SciPy's functions on images for the function ``user``, which an error names.

    The module is returned as Any, because SciPy's annotations say that a filter may return None. A filter does so only
    where its caller gives an array for the output.

    Raises:
        ImportError: if there is no SciPy; names the extra.
    """
    with requires("segmentation", user):
        from scipy import ndimage
    return ndimage


def standardise(image: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Gives each channel mean 0 and standard deviation 1 inside the head, and 0 outside.

    The result is ``(image - m) / s``, with ``m`` and ``s`` the channel's mean and standard deviation over the voxels of
    ``head``. A channel that is constant there becomes 0.

    Args:
        image: [x, y, z, channels], any units.
        head: bool [x, y, z], at least one voxel.

    Returns:
        float32 [x, y, z, channels].

    Raises:
        ValueError: if the shapes do not match, or ``head`` is empty.

    Example:
        >>> import numpy as np
        >>> image = np.array([0.0, 0.0, 10.0, 20.0, 30.0]).reshape(5, 1, 1, 1)
        >>> standardise(image, image[..., 0] > 0).ravel().round(2).tolist()
        [0.0, 0.0, -1.22, 0.0, 1.22]
    """
    if head.shape != image.shape[:-1] or not head.any():
        raise ValueError(f"head must be a mask {image.shape[:-1]} with a voxel set, got {head.shape}, {head.sum()} set")
    inside = image[head].astype(np.float32)
    spread = inside.std(0)
    standard = np.zeros(image.shape, np.float32)
    standard[head] = (inside - inside.mean(0)) / np.where(spread > 0, spread, 1)
    return standard


def to_cube(volumes: np.ndarray, head: np.ndarray, spacing: np.ndarray, grid: int) -> np.ndarray:
    """Resamples volumes to a cubic grid of isotropic voxels that is centred on the head and holds all of it.

    The cube's side is the longest side of the head's bounding box plus a margin of 6 % of the cube at either end.
    Places outside the given volume count as 0.

    The interpolation is linear. Where the cube's voxels are wider than the given ones, the volume is smoothed first, so
    that fine detail is averaged and not aliased. The Gaussian's standard deviation is half the ratio of the two widths,
    in given voxels.

    Args:
        volumes: [x, y, z, channels]. To resample a region's mask, give it as 0 and 1 and compare the result with 0.5.
        head: bool [x, y, z], at least one voxel.
        spacing: [3], the width of a voxel along each axis, mm.
        grid: number of voxels along each side of the cube.

    Returns:
        float32 [grid, grid, grid, channels].

    Raises:
        ValueError: if the shapes do not match, or ``head`` is empty, or ``grid`` is below 8.
        ImportError: if there is no SciPy; names the extra.

    Example:
        >>> import numpy as np
        >>> head = np.zeros((40, 40, 20), bool)
        >>> head[5:35, 10:30, 5:15] = True  # 30 x 20 x 20 mm where voxels are 1 x 1 x 2 mm
        >>> cube = to_cube(head[..., None], head, np.array([1.0, 1.0, 2.0]), grid=34)
        >>> cube.shape, [high - low for low, high in bounding_box(cube[..., 0] >= 0.5)]
        ((34, 34, 34, 1), [30, 20, 20])
    """
    ndimage = ndimage_for("mixjax.data.segmentation.to_cube")
    if grid < 8:
        raise ValueError(f"grid must be at least 8, got {grid}")
    if head.shape != volumes.shape[:-1] or not head.any():
        raise ValueError(f"head must be a mask {volumes.shape[:-1]} with a voxel set, got {head.shape}")
    spacing = np.asarray(spacing, float)
    low, high = (np.array(ends) for ends in zip(*bounding_box(head), strict=True))
    # The width of a voxel of the cube, in given voxels along each axis.
    step = ((high - low) * spacing).max() / (1 - 2 * _MARGIN) / grid / spacing
    sigma = np.where(step > 1, step / 2, 0)
    # SciPy cuts its Gaussian at four standard deviations, so voxels beyond this box do not reach the head.
    pad = np.ceil(4 * sigma).astype(int) + 1
    box = [slice(max(a - p, 0), b + p) for a, b, p in zip(low, high, pad, strict=True)]
    start = np.array([part.start for part in box])
    # The given place of the cube's first voxel: the head's middle is the cube's middle.
    offset = (low + high - 1) / 2 - step * (grid - 1) / 2 - start
    out = np.empty((grid, grid, grid, volumes.shape[-1]), np.float32)
    for channel in range(volumes.shape[-1]):
        smooth = ndimage.gaussian_filter(volumes[*box, channel].astype(np.float32), sigma, mode="constant")
        out[..., channel] = ndimage.affine_transform(smooth, step, offset, (grid,) * 3, order=1, mode="grid-constant")
    return out


def bounding_box(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns the first voxel and the one after the last, along each axis, of a mask that has a voxel set."""
    ends = []
    for axis in range(mask.ndim):
        other_axes = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(other_axes))
        ends.append((int(occupied[0]), int(occupied[-1]) + 1))
    return ends
