"""Reads BraTS brain tumour cases, one at a time, from the folders in which the challenge hands them out.

The data need a registration and are never fetched. A case is a folder anywhere below the given one; BraTS 2019 has HGG/
and LGG/ between them. It holds five volumes, each as .nii.gz or .nii:

    CASE/CASE_t1  CASE/CASE_t1ce  CASE/CASE_t2  CASE/CASE_flair  CASE/CASE_seg

The segmentation's values are 0 background, 1 necrotic and non-enhancing core, 2 oedema and 4 enhancing core. The
regions that are scored are nested: whole = 1, 2 or 4; core = 1 or 4; enhancing = 4.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases, bounding_box, ndimage_for, standardise, to_cube
from mixjax.files import local_path

__all__ = ["LABELS", "UNKNOWN", "Case", "centre_names", "list_cases", "load", "load_case"]

LABELS = {0: 0, 2: 1, 1: 2, 4: 3}
"""Value of the segmentation file -> label of :class:`Cases`, whose regions are nested in the order of the labels."""

UNKNOWN = "unknown"
# Names with a centre are BraTS19_TCIA01_201_1 or Brats17_2013_2_1, names without one BraTS20_Training_001.
_CENTRE = re.compile(r"BraTS\d+_(2013|[A-Z]+)", re.IGNORECASE)
_NOT_A_CENTRE = ("Training", "Validation", "Testing")
# The affines of one case's volumes may differ by this much, in mm.
_TOLERANCE = 1e-3


class Case(NamedTuple):
    """Names a case, its folder and its centre.

    Attributes:
        name: the name of the folder, such as "BraTS19_TCIA01_201_1".
        folder: the folder with the case's volumes.
        centre: the centre that acquired the case, such as "TCIA", or "unknown".
    """

    name: str
    folder: Path
    centre: str


def list_cases(folder: str | os.PathLike) -> list[Case]:
    """Finds the cases below a folder, without reading a volume.

    A case's centre is the part of its name after the year, without the number that TCIA gives its collections:

    - "BraTS19_TCIA01_201_1" comes from "TCIA",
    - "BraTS19_CBICA_AAB_1" from "CBICA",
    - "BraTS19_2013_2_1" from "2013".

    The names of later years, such as "BraTS20_Training_001", do not name a centre. For these, a file
    ``name_mapping.csv`` below the folder may have a row with the case's name of an earlier year. Without such a row the
    centre is "unknown".

    Args:
        folder: the folder of the challenge, of a grade, or any other that holds the cases.

    Returns:
        The cases, sorted by name.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no case.
        ValueError: if two cases have the same name.
    """
    folder = local_path("folder", folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"BraTS: {folder} is not a folder")
    volumes = [path for path in folder.rglob("*.nii*") if path.name.startswith(f"{path.parent.name}_")]
    places = sorted({path.parent for path in volumes}, key=lambda place: (place.name, place))
    if not places:
        raise FileNotFoundError(f"BraTS: no case is below {folder}: no CASE/CASE_*.nii.gz nor CASE/CASE_*.nii")
    # The places are sorted by name, so equal names stand next to each other.
    for first, second in itertools.pairwise(places):
        if first.name == second.name:
            raise ValueError(f"BraTS: two cases have the name {first.name}: {first} and {second}")
    names = _earlier_names(folder)
    return [Case(place.name, place, _centre((place.name, *names.get(place.name, ())))) for place in places]


def load_case(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads one case at its own resolution, cut to the box around the head.

    Args:
        case: one of :func:`list_cases`.

    Returns:
        A tuple of

        - image: float32 [x, y, z, 4], the channels of :data:`mixjax.data.segmentation.CHANNELS`, as stored but turned
          to the orientation right-anterior-superior;
        - label: int8 [x, y, z], as in :class:`Cases`;
        - spacing: float [3], the width of a voxel along each axis, mm.

        The head is where any channel is not 0, and the box is the smallest that holds it.

    Raises:
        FileNotFoundError: if a volume is missing.
        ValueError: if a volume cannot be read, is not 3-D, does not lie on the grid of the first, or holds a value that
            is not finite; if the segmentation holds an unknown value; if no channel has a voxel other than 0. Each
            names the case and the file.
        ImportError: if there is no nibabel; names the extra.
    """
    volumes = {name: _read(case, name) for name in (*CHANNELS, "seg")}
    first, affine = volumes[CHANNELS[0]]
    for name, (values, its_affine) in volumes.items():
        if values.shape != first.shape:
            raise ValueError(_about(case, name, f"shape {values.shape} differs from {first.shape} of {CHANNELS[0]}"))
        if not np.allclose(its_affine, affine, atol=_TOLERANCE):
            raise ValueError(_about(case, name, f"affine\n{its_affine}\ndiffers from that of {CHANNELS[0]}\n{affine}"))
    values = volumes["seg"][0]
    unknown = np.setdiff1d(values, list(LABELS))
    if unknown.size:
        raise ValueError(_about(case, "seg", f"labels must be among {sorted(LABELS)}, got {unknown[:5].tolist()}"))
    image = np.stack([volumes[name][0] for name in CHANNELS], -1)
    head = (image != 0).any(-1)
    if not head.any():
        raise ValueError(_about(case, CHANNELS[0], "no channel has a voxel other than 0"))
    box = tuple(slice(*ends) for ends in bounding_box(head))
    label = np.zeros(values.shape, np.int8)
    for value, nested in LABELS.items():
        label[values == value] = nested
    return image[box], label[box], np.linalg.norm(affine[:3, :3], axis=0)


def load(folder: str | os.PathLike, *, grid: int = 48, cases: Iterable[Case] | None = None) -> Cases:
    """Loads cases on one cubic grid, reading one at a time.

    Each case is resampled by :func:`mixjax.data.segmentation.to_cube` to a cube that just holds its head, then
    standardised inside the head, as nnU-Net does. A voxel belongs to a region if at least half of it does. The regions
    therefore stay nested, but a region thinner than a voxel may vanish.

    Args:
        folder: the folder that holds the cases; see :func:`list_cases`.
        grid: number of voxels along each side, at least 8.
        cases: some of ``list_cases(folder)``, in any order; all when None.

    Returns:
        The cases. Their ``centres`` are positions in ``centre_names(list_cases(folder))``, the sorted names of all
        centres below the folder, whatever ``cases`` are.

    Raises:
        FileNotFoundError, ValueError, ImportError: as :func:`list_cases` and :func:`load_case`.
    """
    listed = list_cases(folder)
    names = centre_names(listed)
    chosen = listed if cases is None else list(cases)
    ndimage = ndimage_for("mixjax.data.brats.load")
    loaded = Cases(
        np.empty((len(chosen), grid, grid, grid, len(CHANNELS)), np.float32),
        np.zeros((len(chosen), grid, grid, grid), np.int8),
        np.array([names.index(case.centre) for case in chosen], np.int32),
    )
    for i, case in enumerate(chosen):
        image, label, spacing = load_case(case)
        head = ndimage.binary_fill_holes((image != 0).any(-1))
        # All masks are resampled together, so that they are cut from the same cube.
        regions = np.stack([head, *(label >= value for value in REGIONS.values())], -1)
        inside = to_cube(regions, head, spacing, grid) >= 0.5
        loaded.images[i] = standardise(to_cube(image, head, spacing, grid), inside[..., 0])
        loaded.labels[i] = inside[..., 1:].sum(-1)
    return loaded


def centre_names(cases: Iterable[Case]) -> list[str]:
    """Returns the names of the cases' centres, each once, sorted."""
    return sorted({case.centre for case in cases})


def _centre(names: Iterable[str]) -> str:
    """Returns the centre in the first of a case's names that has one."""
    for name in names:
        found = _CENTRE.match(name)
        if found and found[1] not in _NOT_A_CENTRE:
            return found[1]
    return UNKNOWN


def _earlier_names(folder: Path) -> dict[str, list[str]]:
    """Returns each case's name -> its names of all years, from the files name_mapping.csv, one column for each year."""
    earlier = {}
    for path in sorted(folder.rglob("name_mapping.csv")):
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))[1:]
        for row in rows:
            names = [name for name in row if _CENTRE.match(name)]
            earlier |= dict.fromkeys(names, names)
    return earlier


def _read(case: Case, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one volume of a case and its affine, turned to right-anterior-superior."""
    with requires("segmentation", "mixjax.data.brats.load_case"):
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    paths = [case.folder / f"{case.name}_{name}{ending}" for ending in (".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"BraTS case {case.name}: neither {paths[0]} nor {paths[1].name} is there")
    try:
        # pyright takes the result for the base class of all formats, which has neither shape nor data.
        image: Any = nibabel.load(path)
        if len(image.shape) != 3:
            raise ValueError(f"must be 3-D, got shape {image.shape}")
        image = nibabel.as_closest_canonical(image)
        values = image.get_fdata(dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"BraTS case {case.name}: {path}: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"BraTS case {case.name}: {path}: {(~np.isfinite(values)).sum()} voxels are not finite")
    return values, image.affine


def _about(case: Case, name: str, message: str) -> str:
    """Returns an error message that names the case and the volume."""
    return f"BraTS case {case.name}: {case.folder / f'{case.name}_{name}'}: {message}"
