"""SIMULATED brain tumours on real anatomies, imaged by the simulated scanners of four centres, one rare and hard.

It stands in for BraTS, which needs a registration (`mixjax.data.brats` reads it). Real is the anatomy: the tissue maps
of `mixjax.data.anatomies`. Simulated are each patient's deformation of it, the tumour, the contrasts and the scanner:

1. anatomy: one of the given brains, mirrored at random, turned, scaled and smoothly deformed;
2. tumour: three nested regions around one point; the outermost (oedema) spreads along white matter, the core lies off
   its middle, and the core's outer part, around necrosis, enhances;
3. contrasts: a voxel's intensity is the sum over tissues of fraction times intensity, `INTENSITIES`;
4. scanner: the centre's contrasts, uptake of the agent, thick slices, bias field and Rician noise, `SCANNERS`.

Every knob of the difficulty is a constant below. The rare centre is hard because its contrasts differ more than because
its images are worse, so that what it takes can be learnt from its own cases. That was the only thing checked when its
scanner was chosen (grid 32; a boosted classifier of single voxels; no network, no sampling): trained on the other
centres, the Dice score of the rare one's enhancing regions is half of what it is trained on the rare one's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mixjax.data.anatomies import Anatomy
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases, standardise

__all__ = ["CENTRES", "CHANNELS", "INTENSITIES", "REGIONS", "SCANNERS", "Cases", "Scanner", "simulate"]


class Scanner(NamedTuple):
    """How a centre images.

    Attributes:
        uptake: what the contrast agent adds to the enhancing core in t1ce, as a share of the usual.
        leak: what it adds to the non-enhancing core, as a share of the same: it seeps in when images are taken late.
        oedema: the contrast of the whole tumour to healthy tissue in t2 and flair, as a share of the usual one.
        fluid: intensity of cerebrospinal fluid in flair; 0.15 where it is nulled.
        slices: standard deviation of the blur across slices, voxels.
        blur: standard deviation of the blur in the plane, voxels.
        bias: standard deviation of the log of the bias field.
        noise: standard deviation of the noise in each of the two components of the signal; white matter in t1 is 1.
    """

    uptake: float = 1.0
    leak: float = 0.0
    oedema: float = 1.0
    fluid: float = 0.15
    slices: float = 0.0
    blur: float = 0.3
    bias: float = 0.08
    noise: float = 0.05


SCANNERS = {
    "university": Scanner(),
    "clinic": Scanner(uptake=0.8, oedema=0.9, slices=0.6, noise=0.07),
    "private practice": Scanner(uptake=0.9, blur=0.4, bias=0.1, noise=0.06),
    "low field": Scanner(uptake=0.35, leak=1.0, oedema=0.75, fluid=0.8, slices=0.4, bias=0.06),
}
"""The centres' scanners; the last centre is the rare one."""

CENTRES = tuple(SCANNERS)

INTENSITIES = np.array(
    [  # t1, t1ce, t2, flair
        [0.25, 0.25, 1.60, 0.15],  # fluid
        [0.70, 0.72, 0.85, 0.80],  # grey matter
        [1.00, 1.00, 0.60, 0.65],  # white matter
        [0.65, 0.67, 1.15, 1.25],  # oedema
        [0.45, 0.47, 1.35, 0.95],  # non-enhancing core
        [0.60, 1.40, 1.05, 1.15],  # enhancing core
    ],
    np.float32,
)
"""Mean intensity of each tissue in each contrast, where white matter in t1 is 1; rows 3 to 5 are labels 1 to 3."""

RADIUS = (0.10, 0.20)  # of the tumour, as a share of the grid's side
CORE = (0.50, 0.75)  # the core's radius, as a share of the tumour's
NECROSIS = (0.50, 0.85)  # the necrosis's radius, as a share of the core's
ROUGHNESS = 0.25  # standard deviation of the log radius over a surface
SMALLEST = 10  # voxels of the enhancing region, at least; a smaller tumour is drawn anew
TEXTURE = 0.10  # standard deviation of the relative intensity inside a tumour
UPTAKE = 0.30  # standard deviation of the log uptake over patients
PATIENT = 0.06  # standard deviation of each tissue's log intensity over patients
TURN = 0.12  # standard deviation of each rotation, radians
STRETCH = 0.05  # standard deviation of each axis's log scale
DEFORMATION = 0.02  # standard deviation of the smooth displacement, as a share of the grid's side


def simulate(
    anatomies: Sequence[Anatomy],
    seed: int | Sequence[int],
    num_cases: int,
    centre_shares: Sequence[float],
    grid: int = 48,
) -> Cases:
    """Simulate cases: real anatomies, simulated deformations, tumours, contrasts and scanners; see the module.

    Case `i` depends on `seed`, `i`, its centre and the anatomies alone; every case has its own deformation and tumour.
    Give training and test cases different seeds, such as `(seed, 0)` and `(seed, 1)`.

    Args:
        anatomies: brains on a cube of `grid` voxels; each case is one of them, drawn uniformly.
        seed: a non-negative integer, or several.
        num_cases: number of cases.
        centre_shares: share of each centre of `CENTRES`, non-negative, normalised here; the counts are exact up to
            rounding by largest remainder, and the cases' order is random.
        grid: number of voxels along each side, at least 16, below which no tumour has `SMALLEST` enhancing voxels.

    Returns:
        The cases; every region of every case has at least `SMALLEST` voxels.

    Raises:
        ValueError: if the grid is too coarse, if there is no anatomy or one is not on the grid, or if the shares are
            not one number per centre.
    """
    if grid < 16:
        raise ValueError(f"grid must be at least 16, got {grid}")
    shape = (grid, grid, grid, 3)
    if not anatomies or any(anatomy.tissues.shape != shape for anatomy in anatomies):
        raise ValueError(f"anatomies must be on a grid {shape}, got {[a.tissues.shape for a in anatomies]}")
    stream, *streams = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(num_cases + 1))
    centres = _centres(stream, num_cases, centre_shares)
    cases = Cases(
        np.empty((num_cases, grid, grid, grid, len(CHANNELS)), np.float32),
        np.empty((num_cases, grid, grid, grid), np.int8),
        centres,
    )
    for i, (rng, centre) in enumerate(zip(streams, centres, strict=True)):
        tissues = _deform(rng, anatomies[rng.integers(len(anatomies))].tissues)
        cases.labels[i], fractions = _tumour(rng, tissues)
        image = _scan(rng, SCANNERS[CENTRES[centre]], fractions)
        cases.images[i] = standardise(image, tissues.sum(-1) > 0.5)
    return cases


def _centres(rng: np.random.Generator, num_cases: int, shares: Sequence[float]) -> np.ndarray:
    """The centre of each case, int32 [num_cases]."""
    shares = np.asarray(shares, float)
    if shares.shape != (len(CENTRES),) or not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
        raise ValueError(f"centre_shares must be {len(CENTRES)} non-negative numbers with a positive sum, got {shares}")
    quota = num_cases * shares / shares.sum()
    counts = np.floor(quota).astype(int)
    counts[np.argsort(counts - quota, kind="stable")[: num_cases - counts.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(CENTRES), dtype=np.int32), counts))


def _field(rng: np.random.Generator, grid: int, knots: int) -> np.ndarray:
    """A smooth random field [grid, grid, grid] of mean 0 and standard deviation 1, about `knots` bumps along a side."""
    places, centres = (np.arange(grid) + 0.5) * knots / grid, np.arange(-1, knots + 1) + 0.5
    bumps = np.exp(-2 * (places[:, None] - centres) ** 2).astype(np.float32)
    field = rng.standard_normal((knots + 2,) * 3, np.float32)
    for _ in range(3):
        field = np.tensordot(field, bumps, (0, 1))  # the axes turn: after three, they are in order again
    return (field - field.mean()) / field.std()


def _deform(rng: np.random.Generator, tissues: np.ndarray) -> np.ndarray:
    """A patient's tissues: mirrored, turned, scaled and smoothly deformed."""
    grid = len(tissues)
    turn = np.eye(3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = TURN * rng.standard_normal()
        plane = np.eye(3)
        plane[[a, b], [a, b]] = np.cos(angle)
        plane[a, b], plane[b, a] = np.sin(angle), -np.sin(angle)
        turn = turn @ plane
    matrix = turn * np.exp(STRETCH * rng.standard_normal(3)) * np.array([rng.choice([-1, 1]), 1, 1])
    centred = np.indices(tissues.shape[:3], np.float32) - np.float32((grid - 1) / 2)
    points = np.tensordot(matrix.astype(np.float32), centred, 1) + np.float32((grid - 1) / 2)
    points += DEFORMATION * grid * np.stack([_field(rng, grid, 5) for _ in range(3)])
    return np.stack([ndimage.map_coordinates(tissues[..., k], points, order=1) for k in range(3)], -1)


def _tumour(rng: np.random.Generator, tissues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels [x, y, z] of a tumour in the tissues, and the fractions [x, y, z, 6] of all tissues with it."""
    brain = tissues.sum(-1) > 0.5
    depth = ndimage.distance_transform_edt(brain & (tissues[..., 0] < 0.5))
    white = ndimage.gaussian_filter(tissues[..., 2], 1)
    labels = _regions(rng, brain, depth, white)
    while (labels == 3).sum() < SMALLEST:
        labels = _regions(rng, brain, depth, white)
    inside = np.stack([ndimage.gaussian_filter((labels == k).astype(np.float32), 0.5) for k in (1, 2, 3)], -1)
    return labels, np.concatenate([tissues * (1 - inside.sum(-1, keepdims=True)), inside], -1)


def _regions(rng: np.random.Generator, brain: np.ndarray, depth: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Labels int8 [x, y, z] of one tumour: each region is a rough ellipsoid, cut off at the region around it."""
    grid = len(brain)
    radius = grid * rng.uniform(*RADIUS)
    core = radius * rng.uniform(*CORE)
    necrosis = core * rng.uniform(*NECROSIS)
    middle = rng.choice(np.argwhere(depth > min(0.4 * radius, 0.9 * depth.max())))
    core_middle = middle + 0.5 * (radius - core) * rng.uniform(-1, 1, 3)
    axes = np.exp(0.2 * rng.standard_normal(3))

    def distance(point):
        squares = [((np.arange(grid) - p) / axis) ** 2 for p, axis in zip(point, axes, strict=True)]
        rough = np.exp(ROUGHNESS * _field(rng, grid, 9))
        return np.sqrt(sum(np.ix_(*squares))).astype(np.float32) * rough

    in_whole = brain & (distance(middle) < radius * (0.75 + 0.5 * white))
    in_core = in_whole & (distance(core_middle) < core)
    return in_whole.astype(np.int8) + in_core + (in_core & (distance(core_middle) > necrosis))


def _scan(rng: np.random.Generator, scanner: Scanner, fractions: np.ndarray) -> np.ndarray:
    """The four contrasts [x, y, z, 4] of the tissues as the centre's scanner shows them."""
    grid = len(fractions)
    table = INTENSITIES.copy()
    table[0, 3] = scanner.fluid
    agent = np.exp(UPTAKE * rng.standard_normal()) * (table[5, 1] - table[5, 0])
    table[4:, 1] = table[4:, 0] + agent * np.array([scanner.leak, scanner.uptake])
    healthy = table[1:3, 2:].mean(0)  # of grey and white matter
    table[3:, 2:] = healthy + scanner.oedema * (table[3:, 2:] - healthy)
    table *= np.exp(PATIENT * rng.standard_normal(table.shape))
    image = fractions @ table
    lesion = fractions[..., 3:].sum(-1)
    for channel in range(len(CHANNELS)):
        signal = image[..., channel] * (1 + TEXTURE * lesion * _field(rng, grid, grid // 3))
        signal *= np.exp(scanner.bias * _field(rng, grid, 3))
        signal = ndimage.gaussian_filter(signal, (scanner.blur, scanner.blur, max(scanner.slices, scanner.blur)))
        real, imaginary = scanner.noise * rng.standard_normal((2, grid, grid, grid), np.float32)
        image[..., channel] = np.hypot(signal + real, imaginary)
    return image
