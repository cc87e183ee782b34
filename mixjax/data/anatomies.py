"""Real brains as maps of three tissues, each a data set of its own that one command fetches from a package.

- "mni152": the average of 152 adults (ICBM 2009a, symmetric) with its grey- and white-matter maps, inside the PyPI
  package nilearn;
- "colin27": the average of 27 scans of one man, without the skull, and
- "inia19": the average of 19 macaques, without the skull, both inside the Debian package mricron-data.

A Debian package can be downloaded where there is apt-get: on Debian and its relatives. Elsewhere its volumes come from
a folder (`mixjax data colin27 --from FOLDER`), such as /usr/share/mricron/templates where it is installed.

References:
    Fonov et al., "Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", 2009 (MNI152);
    Holmes et al., "Enhancement of MR images using registration for signal averaging", 1998 (Colin27);
    Rohlfing et al., "The INIA19 template and NeuroMaps atlas for primate brain image parcellation and spatial
    normalization", 2012 (INIA19).
"""

import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixjax.data import files, packages
from mixjax.data.segmentation import need, to_cube

WHEEL = "nilearn==0.14.1"
DEBIAN = "mricron-data"


def _from_nilearn() -> dict[str, bytes]:
    """The volumes of MNI152, out of nilearn's wheel."""
    members = {name: f"nilearn/datasets/data/{name}.gz" for name in MNI152.checksums}
    return {name: gzip.decompress(data) for name, data in packages.from_wheel(WHEEL, members).items()}


def _from_debian(names: Iterable[str]) -> dict[str, bytes]:
    """Volumes of the Debian package: downloaded and unpacked in a temporary folder; nothing is installed or run."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(
                f"{tool} is not on PATH: the Debian package {DEBIAN} needs Debian or a relative of it; elsewhere, name "
                "a folder that holds its volumes with --from"
            )
    with tempfile.TemporaryDirectory() as folder:
        _run(["apt-get", "download", "--quiet", DEBIAN], folder)
        packages = list(Path(folder).glob("*.deb"))
        if len(packages) != 1:
            raise RuntimeError(f"apt-get download {DEBIAN} left {len(packages)} packages, expected 1")
        _run(["dpkg-deb", "--extract", packages[0].name, "unpacked"], folder)
        templates = Path(folder) / "unpacked/usr/share/mricron/templates"
        return {name: gzip.decompress((templates / f"{name}.gz").read_bytes()) for name in names}


def _run(command: list[str], folder: str) -> None:
    """Run a command in a folder; a RuntimeError with its last words if it fails."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr.strip()[-1000:]}")


MNI152 = files.PinnedFiles(
    "mni152",
    "MNI152",
    {  # T1, grey matter, white matter
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
    """A brain on a cubic grid.

    Attributes:
        name: a key of `ANATOMIES`.
        tissues: float32 [grid, grid, grid, 3], the fractions of cerebrospinal fluid, grey and white matter in each
            voxel, from 0 to 1; their sum is the fraction of the voxel inside the brain.
    """

    name: str
    tissues: np.ndarray


def load(
    names: Iterable[str] = ("mni152", "colin27"), *, grid: int = 48, root: str | os.PathLike | None = None
) -> list[Anatomy]:
    """Load anatomies from the cache, on a cubic grid. Never downloads.

    The volumes are verified by SHA-256, turned to the orientation right-anterior-superior, and resampled to a cube
    that just holds the brain: about 4 mm a voxel for a human brain at grid 48; the macaque's is as large in voxels.
    The tissues of "mni152" are its own grey- and white-matter maps and, in the rest of the brain, fluid. The others
    have only a T1 image `v`; their tissues follow from a partial-volume model: with `m` the three means of a k-means
    clustering of the image's values inside the brain, a voxel with `m_k <= v <= m_{k+1}` holds
    `(m_{k+1} - v) / (m_{k+1} - m_k)` of tissue `k` and the rest of tissue `k + 1`.

    Args:
        names: keys of `ANATOMIES`.
        grid: number of voxels along each side, at least 8.
        root: folder of the cache; `mixjax.data.cache_dir()` when None.

    Returns:
        One `Anatomy` per name.

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
    """One anatomy on its cube."""
    nibabel = need("nibabel")
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
    """The brain in a T1 image without skull: the largest piece, rid of thin streaks, its furrows and holes filled."""
    ndimage = need("scipy.ndimage")
    pieces, _ = ndimage.label(ndimage.binary_opening(t1 > 0, iterations=2))
    brain = np.pad(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, 5)
    return ndimage.binary_fill_holes(ndimage.binary_closing(brain, iterations=5))[5:-5, 5:-5, 5:-5]


def _partial_volumes(t1: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fractions [x, y, z, 3] of fluid, grey and white matter from one T1 image: see `load`."""
    values = np.sort(t1[brain])
    sums = np.concatenate([[0], np.cumsum(values, dtype=float)])
    means = np.linspace(*np.quantile(values, [0.02, 0.98]), 3)
    for _ in range(50):  # Lloyd's iteration; on sorted values each cluster is a slice
        edges = np.concatenate([[0], np.searchsorted(values, (means[1:] + means[:-1]) / 2), [len(values)]])
        sizes = np.diff(edges)
        means = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), means)
    return np.stack([np.interp(t1, means, unit) * brain for unit in np.eye(3)], -1).astype(np.float32)
