"""Loads real brains as maps of three tissues. Each brain is a data set that one command fetches from a package.

- "mni152": the average of 152 adults (ICBM 2009a, symmetric) with its grey- and white-matter maps, inside the PyPI
  package nilearn;
- "colin27": the average of 27 scans of one man, without the skull, and
- "inia19": the average of 19 macaques, without the skull, both inside the Debian package mricron-data.

A Debian package can be downloaded where there is apt-get: on Debian and its relatives. Elsewhere, give a folder that
holds its volumes (``mixjax data colin27 --from FOLDER``), such as /usr/share/mricron/templates where it is installed.

References:
    Fonov et al., "Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", 2009 (MNI152);
    Holmes et al., "Enhancement of MR images using registration for signal averaging", 1998 (Colin27);
    Rohlfing et al., "The INIA19 template and NeuroMaps atlas for primate brain image parcellation and spatial
    normalization", 2012 (INIA19).
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.data import debian, files, packages
from mixjax.data.segmentation import ndimage_for, to_cube

__all__ = ["ANATOMIES", "COLIN27", "INIA19", "MNI152", "Anatomy", "AnatomyName", "load"]

AnatomyName = Literal["mni152", "colin27", "inia19"]

WHEEL = "nilearn==0.14.1"
DEBIAN = "mricron-data"


def _from_nilearn() -> dict[str, bytes]:
    """Reads the volumes of MNI152 out of nilearn's wheel."""
    members = {name: f"nilearn/datasets/data/{name}.gz" for name in MNI152.checksums}
    return {name: gzip.decompress(data) for name, data in packages.from_wheel(WHEEL, members).items()}


def _from_debian(names: Iterable[str]) -> dict[str, bytes]:
    """Reads volumes out of the Debian package."""
    wanted = {f"usr/share/mricron/templates/{name}.gz": name for name in names}
    found = {
        wanted[path]: gzip.decompress(file.read())
        for path, file in debian.members(debian.download(DEBIAN))
        if path in wanted
    }
    missing = sorted(set(wanted.values()) - set(found))
    if missing:
        raise FileNotFoundError(f"the Debian package {DEBIAN} lacks {', '.join(missing)}")
    return found


MNI152 = files.PinnedFiles(
    "mni152",
    "MNI152",
    # T1, grey matter, white matter.
    {
        f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii": checksum
        for name, checksum in (
            ("t1", "eeb8a792a93948c83462305c71db783800e95eb3f6ce35975a4dd0f374f79bff"),
            ("gm", "9800242e730cec0d4ae97358d232904d09771bb0f10202ea4bf80eee50609b43"),
            ("wm", "7c78a23ddd786979edbb50bdada52c86c405cf2986baee5df5791e0200d7ffeb"),
        )
    },
    {"package": _from_nilearn},
)
COLIN27 = files.PinnedFiles(
    "colin27",
    "Colin27",
    {"ch2bet.nii": "521204362226d485c92ef5383327765b0344c99ff9ac60000a1f591ff0c3fb34"},
    {"package": lambda: _from_debian(COLIN27.checksums)},
)
INIA19 = files.PinnedFiles(
    "inia19",
    "INIA19",
    {"inia19-t1-brain.nii": "ecc8a0191efe8131caa37aa86ffe8664dcd51c4278b207fa71e014bd4723d9aa"},
    {"package": lambda: _from_debian(INIA19.checksums)},
)
ANATOMIES = {pinned.name: pinned for pinned in (MNI152, COLIN27, INIA19)}
"""The pinned volumes of every anatomy, uncompressed; the first volume is a T1 image without the skull."""


class Anatomy(NamedTuple):
    """Holds a brain on a cubic grid.

    Attributes:
        name: a key of :data:`ANATOMIES`.
        tissues: float32 [grid, grid, grid, 3], the fractions of cerebrospinal fluid, grey and white matter in each
            voxel, from 0 to 1. The three sum to the fraction of the voxel that is inside the brain.
    """

    name: str
    tissues: np.ndarray


def load(
    names: Iterable[AnatomyName] = ("mni152", "colin27"), *, grid: int = 48, root: str | os.PathLike | None = None
) -> list[Anatomy]:
    """Loads anatomies from the cache, on a cubic grid. Never downloads.

    The volumes are verified by SHA-256, turned to the orientation right-anterior-superior, and resampled to a cube
    that just holds the brain. At grid 48 a voxel is about 4 mm wide for a human brain; the macaque's brain fills as
    many voxels.

    The tissues of "mni152" are its own grey- and white-matter maps and, in the rest of the brain, fluid. The other
    anatomies have only a T1 image ``v``, and their tissues follow from a partial-volume model. With ``m`` the three
    means of a k-means clustering of the image's values inside the brain, a voxel with ``m_k <= v <= m_{k+1}`` holds
    ``(m_{k+1} - v) / (m_{k+1} - m_k)`` of tissue ``k`` and the rest of tissue ``k + 1``.

    Args:
        names: keys of :data:`ANATOMIES`.
        grid: number of voxels along each side, at least 8.
        root: folder of the cache; :func:`mixjax.data.cache_dir` when None.

    Returns:
        One :class:`Anatomy` per name.

    Raises:
        ValueError: if a name is unknown, or a cached volume is not the pinned one.
        FileNotFoundError: if a volume is not cached; names the command that fetches it.
        ImportError: if there is no nibabel or SciPy; names the extra.
    """
    names = list(names)
    for name in names:
        files.check_name(name, ANATOMIES)
    return [_load(name, files.folder_of(name, root), grid) for name in names]


def _load(name: str, folder: Path, grid: int) -> Anatomy:
    """Loads one anatomy on its cube."""
    with requires("segmentation", "mixjax.data.anatomies.load"):
        import nibabel
    volumes = files.read(ANATOMIES[name], folder).values()
    images = [nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(data)) for data in volumes]
    t1, *maps = (image.get_fdata(dtype=np.float32) for image in images)
    brain = _brain(t1)
    if maps:
        grey, white = (np.where(brain, fraction / np.float32(255), 0) for fraction in maps)
        tissues = np.stack([np.clip(brain - grey - white, 0, 1), grey, white], -1)
    else:
        tissues = _partial_volumes(t1, brain)
    return Anatomy(name, to_cube(tissues, brain, images[0].header.get_zooms(), grid))


def _brain(t1: np.ndarray) -> np.ndarray:
    """Returns the brain's mask in a T1 image without skull, from the image's voxels above 0.

    The mask is their largest piece, without thin streaks, and with its furrows and holes filled.
    """
    ndimage = ndimage_for("mixjax.data.anatomies.load")
    pieces, _ = ndimage.label(ndimage.binary_opening(t1 > 0, iterations=2))
    # Piece 0 is the background.
    largest = np.bincount(pieces.ravel())[1:].argmax() + 1
    # Closing erodes from the volume's border too, so the volume gets a margin as wide as the iterations, cut off below.
    brain = np.pad(pieces == largest, 5)
    return ndimage.binary_fill_holes(ndimage.binary_closing(brain, iterations=5))[5:-5, 5:-5, 5:-5]


def _partial_volumes(t1: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Returns fractions [x, y, z, 3] of fluid, grey and white matter from one T1 image: see :func:`load`."""
    values = np.sort(t1[brain])
    sums = np.concatenate([[0], np.cumsum(values, dtype=float)])
    low, high = np.quantile(values, [0.02, 0.98])
    means = np.linspace(low, high, 3)
    # Lloyd's iteration. On sorted values each cluster is a slice, so a cluster's sum is a difference of two sums.
    for _ in range(50):
        edges = np.concatenate([[0], np.searchsorted(values, (means[1:] + means[:-1]) / 2), [len(values)]])
        sizes = np.diff(edges)
        # A cluster without a value keeps its mean.
        means = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), means)
    # Interpolating the k-th unit vector over the means gives tissue k's share.
    return np.stack([np.interp(t1, means, unit) * brain for unit in np.eye(3)], -1).astype(np.float32)
