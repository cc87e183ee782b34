"""BraTS brain tumour cases in the folders in which the challenge hands them out, read one at a time.

The data need a registration and are never fetched. A case is a folder, anywhere below the one that is given (BraTS 2019
has HGG/ and LGG/ between them), with five volumes, each as .nii.gz or .nii:

    CASE/CASE_t1  CASE/CASE_t1ce  CASE/CASE_t2  CASE/CASE_flair  CASE/CASE_seg

The segmentation's values are 0 background, 1 necrotic and non-enhancing core, 2 oedema and 4 enhancing core. The
regions that are scored are nested: whole = 1, 2 or 4; core = 1 or 4; enhancing = 4.
"""

import csv
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixjax.data.segmentation import CHANNELS, REGIONS, Cases, bounding_box, need, standardise, to_cube

LABELS = {0: 0, 2: 1, 1: 2, 4: 3}
"""A value of the segmentation file -> the label of `Cases`, in which the regions are nested by order."""

UNKNOWN = "unknown"
_CENTRE = re.compile(r"BraTS\d+_(2013|[A-Z]+)", re.IGNORECASE)  # BraTS19_TCIA01_201_1; Brats17_2013_2_1
_NOT_A_CENTRE = ("Training", "Validation", "Testing")  # BraTS20_Training_001
_TOLERANCE = 1e-3  # mm by which the affines of one case may differ


class Case(NamedTuple):
    """Where a case lies.

    Attributes:
        name: the name of its folder, such as "BraTS19_TCIA01_201_1".
        folder: the folder with its volumes.
        centre: where it was acquired, such as "TCIA", or "unknown".
    """

    name: str
    folder: Path
    centre: str


def list_cases(folder: str | os.PathLike) -> list[Case]:
    """Find the cases below a folder, without reading a volume.

    A case's centre is the part of its name after the year, without the number that TCIA gives its collections:
    "BraTS19_TCIA01_201_1" is of "TCIA", "BraTS19_CBICA_AAB_1" of "CBICA", "BraTS19_2013_2_1" of "2013". The names of
    later years say nothing ("BraTS20_Training_001"); then the row of a `name_mapping.csv` below the folder that holds
    the name may give the name of an earlier year, and if it does not the centre is "unknown".

    Args:
        folder: the folder of the challenge, of a grade, or any other that holds the cases.

    Returns:
        The cases, by name.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no case.
        ValueError: if two cases have the same name.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"BraTS: {folder} is not a folder")
    volumes = [path for path in folder.rglob("*.nii*") if path.name.startswith(f"{path.parent.name}_")]
    places = sorted({path.parent for path in volumes}, key=lambda place: (place.name, place))
    if not places:
        raise FileNotFoundError(f"BraTS: no case is below {folder}: no CASE/CASE_*.nii.gz nor CASE/CASE_*.nii")
    for first, second in itertools.pairwise(places):
        if first.name == second.name:
            raise ValueError(f"BraTS: two cases have the name {first.name}: {first} and {second}")
    names = _earlier_names(folder)
    return [Case(place.name, place, _centre((place.name, *names.get(place.name, ())))) for place in places]


def load_case(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read one case at its own resolution, cut to the box around the head.

    Args:
        case: one of `list_cases`.

    Returns:
        image float32 [x, y, z, 4], the channels of `mixjax.data.segmentation.CHANNELS`, as stored but turned to the
        orientation right-anterior-superior; label int8 [x, y, z], as in `Cases`; spacing float [3], mm. The head is
        where any channel is not 0, and the box the smallest that holds it.

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
    """Load cases on one cubic grid, reading one at a time: the record that the simulated lesions give, too.

    Each case is resampled to a cube that just holds its head (`mixjax.data.segmentation.to_cube`), then standardised
    inside the head, as nnU-Net does. A voxel is in a region if at least half of it is; so the regions stay nested, but
    one thinner than a voxel may vanish.

    Args:
        folder: where the cases lie; see `list_cases`.
        grid: number of voxels along each side, at least 8.
        cases: which of `list_cases(folder)`, in which order; all when None.

    Returns:
        The cases. `centres` are positions in the sorted list of the centres' names, `centre_names(list_cases(folder))`,
        whatever `cases` are.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `list_cases` and `load_case`.
    """
    listed = list_cases(folder)
    names = centre_names(listed)
    chosen = listed if cases is None else list(cases)
    loaded = Cases(
        np.empty((len(chosen), grid, grid, grid, len(CHANNELS)), np.float32),
        np.zeros((len(chosen), grid, grid, grid), np.int8),
        np.array([names.index(case.centre) for case in chosen], np.int32),
    )
    for i, case in enumerate(chosen):
        image, label, spacing = load_case(case)
        head = need("scipy.ndimage").binary_fill_holes((image != 0).any(-1))
        regions = np.stack([head, *(label >= value for value in REGIONS.values())], -1)
        inside = to_cube(regions, head, spacing, grid) >= 0.5
        loaded.images[i] = standardise(to_cube(image, head, spacing, grid), inside[..., 0])
        loaded.labels[i] = inside[..., 1:].sum(-1)
    return loaded


def centre_names(cases: Iterable[Case]) -> list[str]:
    """The names of the cases' centres, each once, sorted."""
    return sorted({case.centre for case in cases})


def _centre(names: Iterable[str]) -> str:
    """The centre that the first telling one of a case's names gives."""
    for name in names:
        found = _CENTRE.match(name)
        if found and found[1] not in _NOT_A_CENTRE:
            return found[1]
    return UNKNOWN


def _earlier_names(folder: Path) -> dict[str, list[str]]:
    """Each case's name -> its names of all years, from its row of a name_mapping.csv: one column a year."""
    rows = []
    for path in sorted(folder.rglob("name_mapping.csv")):
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows += [[name for name in row if _CENTRE.match(name)] for row in list(csv.reader(file))[1:]]
    return {name: row for row in rows for name in row}


def _read(case: Case, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One volume of a case and its affine, turned to right-anterior-superior."""
    nibabel = need("nibabel")
    paths = [case.folder / f"{case.name}_{name}{ending}" for ending in (".nii.gz", ".nii")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"BraTS case {case.name}: neither {paths[0]} nor {paths[1].name} is there")
    try:
        image = nibabel.load(path)
        if len(image.shape) != 3:
            raise ValueError(f"must be 3-D, got shape {image.shape}")
        image = nibabel.as_closest_canonical(image)
        values = image.get_fdata(dtype=np.float32)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"BraTS case {case.name}: {path}: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"BraTS case {case.name}: {path}: {(~np.isfinite(values)).sum()} voxels are not finite")
    return values, image.affine


def _about(case: Case, name: str, message: str) -> str:
    """An error message that names the case and the volume."""
    return f"BraTS case {case.name}: {case.folder / f'{case.name}_{name}'}: {message}"
