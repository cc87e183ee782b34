"""What the loaders of 3-D segmentation cases share: their record, its nested regions, and the way onto a cubic grid."""

from typing import NamedTuple

import numpy as np

CHANNELS = ("t1", "t1ce", "t2", "flair")
"""The four contrasts, in the order of the images' last axis; "t1ce" is T1 after a contrast agent."""

REGIONS = {"whole": 1, "core": 2, "enhancing": 3}
"""The nested tumour regions that are scored: region `name` is `labels >= REGIONS[name]`."""

_MARGIN = 0.06  # of the cube's side, left empty at either end of the longest side of the head


class Cases(NamedTuple):
    """Segmentation cases on one cubic grid; all arrays are numpy's.

    Attributes:
        images: float32 [n, x, y, z, 4], the channels of `CHANNELS`; mean 0 and standard deviation 1 inside the head for
            each case and channel, 0 outside.
        labels: int8 [n, x, y, z]: 0 background, 1 oedema, 2 non-enhancing core, 3 enhancing core. The regions of
            `REGIONS` are nested: whole = 1 or more, core = 2 or more, enhancing = 3.
        centres: int32 [n], the centre that each case comes from.
    """

    images: np.ndarray
    labels: np.ndarray
    centres: np.ndarray


def standardise(image: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Give each channel mean 0 and standard deviation 1 inside the head, and 0 outside.

    `(image - m) / s` with `m` and `s` the channel's mean and standard deviation over the voxels of `head`; a channel
    that is constant there becomes 0.

    Args:
        image: [x, y, z, channels], any units.
        head: bool [x, y, z], at least one voxel.

    Returns:
        float32 [x, y, z, channels].

    Raises:
        ValueError: if the shapes do not match, or `head` is empty.

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
    """Resample volumes to a cubic grid of isotropic voxels that is centred on the head and holds all of it.

    The cube's side is the longest side of the head's bounding box plus a margin of 6 % of the cube at either end. When
    its voxels are wider than the given ones, a Gaussian of half the ratio of the two widths, in given voxels, goes
    before the linear interpolation, so that fine detail is averaged and not aliased. Outside the volume is 0.

    Args:
        volumes: [x, y, z, channels]; a region's mask may be given as 0 and 1, to be thresholded at 0.5 afterwards.
        head: bool [x, y, z], at least one voxel.
        spacing: [3], the width of a voxel along each axis, mm.
        grid: number of voxels along each side of the cube.

    Returns:
        float32 [grid, grid, grid, channels].

    Raises:
        ValueError: if the shapes do not match, or `head` is empty, or `grid` is below 8.
        ImportError: if there is no SciPy; names the extra.

    Example:
        >>> import numpy as np
        >>> head = np.zeros((40, 40, 20), bool)
        >>> head[5:35, 10:30, 5:15] = True  # 30 x 20 x 20 mm where voxels are 1 x 1 x 2 mm
        >>> cube = to_cube(head[..., None], head, np.array([1.0, 1.0, 2.0]), grid=34)
        >>> cube.shape, [high - low for low, high in bounding_box(cube[..., 0] >= 0.5)]
        ((34, 34, 34, 1), [30, 20, 20])
    """
    ndimage = need("scipy.ndimage")
    if grid < 8:
        raise ValueError(f"grid must be at least 8, got {grid}")
    if head.shape != volumes.shape[:-1] or not head.any():
        raise ValueError(f"head must be a mask {volumes.shape[:-1]} with a voxel set, got {head.shape}")
    spacing = np.asarray(spacing, float)
    low, high = (np.array(ends) for ends in zip(*bounding_box(head), strict=True))
    step = ((high - low) * spacing).max() / (1 - 2 * _MARGIN) / grid / spacing  # a voxel of the cube, in given voxels
    sigma = np.where(step > 1, step / 2, 0)
    pad = np.ceil(4 * sigma).astype(int) + 1
    box = [slice(max(a - p, 0), b + p) for a, b, p in zip(low, high, pad, strict=True)]
    start = np.array([part.start for part in box])
    offset = (low + high - 1) / 2 - step * (grid - 1) / 2 - start
    out = np.empty((grid, grid, grid, volumes.shape[-1]), np.float32)
    for channel in range(volumes.shape[-1]):
        smooth = ndimage.gaussian_filter(volumes[*box, channel].astype(np.float32), sigma, mode="constant")
        out[..., channel] = ndimage.affine_transform(smooth, step, offset, (grid,) * 3, order=1, mode="grid-constant")
    return out


def bounding_box(mask: np.ndarray) -> list[tuple[int, int]]:
    """The first voxel and the one after the last, along each axis, of a mask that has a voxel set."""
    sides = [mask.any(tuple(a for a in range(mask.ndim) if a != axis)).nonzero()[0] for axis in range(mask.ndim)]
    return [(int(side[0]), int(side[-1]) + 1) for side in sides]


def need(module: str):
    """Import a module that only the segmentation data need.

    Raises:
        ImportError: if it is not installed; names the extra that brings it.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"segmentation data need {package}: pip install 'mixjax[segmentation]'") from error
