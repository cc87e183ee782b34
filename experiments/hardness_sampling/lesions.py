"""SIMULATES brain tumours on real anatomies, imaged by the simulated scanners of four centres, one rare and hard.

The simulation stands in for BraTS, which needs a registration (:mod:`mixjax.data.brats` reads it). The anatomy is real:
it comes from the tissue maps of :mod:`mixjax.data.anatomies`. Everything else is simulated, in four steps:

1. Anatomy: one of the given brains is mirrored at random, turned, scaled and smoothly deformed.
2. Tumour: three nested regions lie around one point. The outermost, the oedema, spreads along white matter. The core
   lies off the middle, and its outer part, around the necrosis, enhances.
3. Contrasts: a voxel's intensity is the sum over tissues of the tissue's fraction times its intensity
   (``INTENSITIES``).
4. Scanner: each centre has its own contrasts, uptake of the agent, slices, bias field and Rician noise (``SCANNERS``).

All settings of the difficulty are constants below. The rare centre is hard because its contrasts differ, rather than
because its images are worse, so that a model can learn it from its own cases. Only this was checked when its scanner
was chosen, on a grid of 32 with a boosted classifier of single voxels, without a network or sampling: trained on the
other centres, the classifier's Dice score for the rare centre's enhancing regions is half of the score that it has when
it is trained on the rare centre.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mixjax.data.anatomies import Anatomy
from mixjax.data.segmentation import CHANNELS, REGIONS, Cases, standardise

__all__ = ["CENTRES", "CHANNELS", "INTENSITIES", "REGIONS", "SCANNERS", "Cases", "Scanner", "simulate"]


class Scanner(NamedTuple):
    """Holds the properties of a centre's images.

    Attributes:
        uptake: the intensity that the contrast agent adds to the enhancing core in t1ce, as a share of the usual.
        leak: the intensity that the agent adds to the non-enhancing core, as a share of the same amount. The agent
            seeps in when images are taken late.
        oedema: the contrast of the whole tumour to healthy tissue in t2 and flair, as a share of the usual one.
        fluid: the intensity of cerebrospinal fluid in flair. It is 0.15 where the scanner nulls the fluid.
        slices: the standard deviation of the blur across slices, in voxels.
        blur: the standard deviation of the blur in the plane, in voxels.
        bias: the standard deviation of the log of the bias field.
        noise: the standard deviation of the noise in each of the two components of the signal. White matter in t1 has
            an intensity of 1.
    """

    uptake: float = 1.0
    leak: float = 0.0
    oedema: float = 1.0
    fluid: float = 0.15
    slices: float = 0.0
    blur: float = 0.3
    bias: float = 0.08
    noise: float = 0.05


# The scanner of each centre. The last centre is the rare one.
SCANNERS = {
    "university": Scanner(),
    "clinic": Scanner(uptake=0.8, oedema=0.9, slices=0.6, noise=0.07),
    "private practice": Scanner(uptake=0.9, blur=0.4, bias=0.1, noise=0.06),
    "low field": Scanner(uptake=0.35, leak=1.0, oedema=0.75, fluid=0.8, slices=0.4, bias=0.06),
}

CENTRES = tuple(SCANNERS)

# The mean intensity of each tissue (row) in each contrast (column: t1, t1ce, t2, flair), where white matter in t1 is 1.
# Rows 3 to 5 are labels 1 to 3.
INTENSITIES = np.array(
    [
        [0.25, 0.25, 1.60, 0.15],  # fluid
        [0.70, 0.72, 0.85, 0.80],  # grey matter
        [1.00, 1.00, 0.60, 0.65],  # white matter
        [0.65, 0.67, 1.15, 1.25],  # oedema
        [0.45, 0.47, 1.35, 0.95],  # non-enhancing core
        [0.60, 1.40, 1.05, 1.15],  # enhancing core
    ],
    np.float32,
)

# The range of the tumour's radius, as a share of the grid's side.
RADIUS = (0.10, 0.20)
# The range of the core's radius, as a share of the tumour's.
CORE = (0.50, 0.75)
# The range of the necrosis's radius, as a share of the core's.
NECROSIS = (0.50, 0.85)
# The standard deviation of the log radius over a surface.
ROUGHNESS = 0.25
# The least number of voxels in the enhancing region. A smaller tumour is drawn anew.
SMALLEST = 10
# The standard deviation of the relative intensity inside a tumour.
TEXTURE = 0.10
# The standard deviation of the log uptake over patients.
UPTAKE = 0.30
# The standard deviation of each tissue's log intensity over patients.
PATIENT = 0.06
# The standard deviation of each rotation, in radians.
TURN = 0.12
# The standard deviation of each axis's log scale.
STRETCH = 0.05
# The standard deviation of the smooth displacement, as a share of the grid's side.
DEFORMATION = 0.02


def simulate(
    anatomies: Sequence[Anatomy],
    seed: int | Sequence[int],
    num_cases: int,
    centre_shares: Sequence[float] | np.ndarray,
    grid: int = 48,
) -> Cases:
    """Simulates cases on real anatomies, with tumours, contrasts and scanners as the module says.

    Case ``i`` depends on ``seed``, ``i``, its centre and the anatomies alone. Every case has its own deformation and
    tumour. Give training and test cases different seeds, such as ``(seed, 0)`` and ``(seed, 1)``.

    Args:
        anatomies: brains on a cube of ``grid`` voxels. Each case is one of them, drawn uniformly.
        seed: a non-negative integer, or several.
        num_cases: the number of cases.
        centre_shares: the share of each centre of ``CENTRES``, non-negative and normalised here. The counts are exact
            up to rounding by largest remainder, and the order of the cases is random.
        grid: the number of voxels along each side, at least 16. On a coarser grid no tumour has ``SMALLEST`` enhancing
            voxels.

    Returns:
        The cases. Every region of every case has at least ``SMALLEST`` voxels.

    Raises:
        ValueError: the grid is too coarse, there is no anatomy or one is not on the grid, or there is not one share
            for each centre.
    """
    if grid < 16:
        raise ValueError(f"grid must be at least 16, got {grid}.")
    shape = (grid, grid, grid, 3)
    if not anatomies or any(anatomy.tissues.shape != shape for anatomy in anatomies):
        raise ValueError(f"anatomies must be on a grid {shape}, got {[a.tissues.shape for a in anatomies]}.")
    # Every case has a stream of random numbers of its own, so that more cases begin with the same ones.
    stream, *streams = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(num_cases + 1))
    centres = _centres(stream, num_cases, centre_shares)
    cases = Cases(
        np.empty((num_cases, grid, grid, grid, len(CHANNELS)), np.float32),
        np.empty((num_cases, grid, grid, grid), np.int8),
        centres,
    )
    for i, (rng, centre) in enumerate(zip(streams, centres, strict=True)):
        tissues = _deform(rng, anatomies[int(rng.integers(len(anatomies)))].tissues)
        cases.labels[i], fractions = _tumour(rng, tissues)
        image = _scan(rng, SCANNERS[CENTRES[centre]], fractions)
        cases.images[i] = standardise(image, tissues.sum(-1) > 0.5)
    return cases


def _centres(rng: np.random.Generator, num_cases: int, centre_shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """Draws the centre of each case, int32 ``[num_cases]``."""
    shares = np.asarray(centre_shares, float)
    if shares.shape != (len(CENTRES),) or not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
        raise ValueError(
            f"centre_shares must be {len(CENTRES)} non-negative numbers with a positive sum, got {shares}."
        )
    quota = num_cases * shares / shares.sum()
    counts = np.floor(quota).astype(int)
    # The cases that rounding down left over go to the largest remainders.
    counts[np.argsort(counts - quota, kind="stable")[: num_cases - counts.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(CENTRES), dtype=np.int32), counts))


def _field(rng: np.random.Generator, grid: int, knots: int) -> np.ndarray:
    """Draws a smooth field ``[grid, grid, grid]`` of mean 0 and deviation 1, with ``knots`` bumps or so a side."""
    places, centres = (np.arange(grid) + 0.5) * knots / grid, np.arange(-1, knots + 1) + 0.5
    bumps = np.exp(-2 * (places[:, None] - centres) ** 2).astype(np.float32)
    field = rng.standard_normal((knots + 2,) * 3, np.float32)
    # Each turn contracts the first axis and appends the new one: after three turns the axes are in order again.
    for _ in range(3):
        field = np.tensordot(field, bumps, (0, 1))
    return (field - field.mean()) / field.std()


def _deform(rng: np.random.Generator, tissues: np.ndarray) -> np.ndarray:
    """Makes a patient's tissues from an anatomy: mirrored, turned, scaled and smoothly deformed."""
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
    """Draws a tumour, and returns its labels ``[x, y, z]`` and the fractions ``[x, y, z, 6]`` of all tissues."""
    brain = tissues.sum(-1) > 0.5
    depth = np.asarray(ndimage.distance_transform_edt(brain & (tissues[..., 0] < 0.5)))
    white = ndimage.gaussian_filter(tissues[..., 2], 1)
    # A tumour whose enhancing region is too small to score is drawn anew.
    labels = _regions(rng, brain, depth, white)
    while (labels == 3).sum() < SMALLEST:
        labels = _regions(rng, brain, depth, white)
    inside = np.stack([ndimage.gaussian_filter((labels == k).astype(np.float32), 0.5) for k in (1, 2, 3)], -1)
    return labels, np.concatenate([tissues * (1 - inside.sum(-1, keepdims=True)), inside], -1)


def _regions(rng: np.random.Generator, brain: np.ndarray, depth: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Draws labels int8 ``[x, y, z]`` of a tumour, whose regions are rough ellipsoids, each within the next."""
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
    """Returns the four contrasts ``[x, y, z, 4]`` of the tissues as a scanner shows them."""
    grid = len(fractions)
    table = INTENSITIES.copy()
    table[0, 3] = scanner.fluid
    agent = np.exp(UPTAKE * rng.standard_normal()) * (table[5, 1] - table[5, 0])
    table[4:, 1] = table[4:, 0] + agent * np.array([scanner.leak, scanner.uptake])
    # The mean intensity of grey and white matter.
    healthy = table[1:3, 2:].mean(0)
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
