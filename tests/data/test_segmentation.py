"""The way onto a cubic grid and the standard intensities, against volumes whose answer is known."""

import sys

import numpy as np
import pytest

from mixjax.data.segmentation import bounding_box, standardise, to_cube


def ball(shape, middle, radius, spacing):
    """A ball of `radius` mm around a voxel."""
    squares = [((np.arange(n) - m) * s) ** 2 for n, m, s in zip(shape, middle, spacing, strict=True)]
    return sum(np.ix_(*squares)) <= radius**2


def test_standardise_has_mean_0_and_deviation_1_inside_and_0_outside():
    rng = np.random.default_rng(0)
    image = rng.normal([5, -3], [2, 0.1], (9, 8, 7, 2))
    head = rng.random((9, 8, 7)) < 0.5
    standard = standardise(image, head)
    assert standard.dtype == np.float32 and (standard[~head] == 0).all()
    np.testing.assert_allclose(standard[head].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standard[head].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(standardise(7 * image + 100, head), standard, atol=1e-3)


def test_standardise_takes_a_constant_channel():
    assert (standardise(np.full((3, 3, 3, 1), 4.0), np.ones((3, 3, 3), bool)) == 0).all()


@pytest.mark.parametrize("head", [np.zeros((4, 4, 4), bool), np.ones((4, 4, 3), bool)])
def test_head_must_fit_and_hold_a_voxel(head):
    with pytest.raises(ValueError, match="head must be a mask"):
        standardise(np.ones((4, 4, 4, 1)), head)
    with pytest.raises(ValueError, match="head must be a mask"):
        to_cube(np.ones((4, 4, 4, 1)), head, np.ones(3), 8)


def test_grid_must_have_8_voxels():
    with pytest.raises(ValueError, match="grid must be at least 8, got 7"):
        to_cube(np.ones((4, 4, 4, 1)), np.ones((4, 4, 4), bool), np.ones(3), 7)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 2.5), (0.5, 1.5, 1)])
@pytest.mark.parametrize("grid", [16, 33])
def test_a_ball_stays_a_ball_in_the_middle_whatever_the_spacing(spacing, grid):
    shape = [int(70 / s) for s in spacing]
    mask = ball(shape, [4 * n // 10 for n in shape], 20, spacing)
    cube = to_cube(mask[..., None], mask, spacing, grid)[..., 0]
    assert cube.shape == (grid,) * 3 and cube.dtype == np.float32
    width = max(np.ptp(ends) * s for ends, s in zip(bounding_box(mask), spacing, strict=True)) / 0.88 / grid
    assert cube.sum() * width**3 == pytest.approx(mask.sum() * np.prod(spacing), rel=0.02)
    middle = np.stack(np.meshgrid(*[np.arange(grid)] * 3, indexing="ij"), -1) - (grid - 1) / 2
    np.testing.assert_allclose((cube[..., None] * middle).sum((0, 1, 2)) / cube.sum(), 0, atol=0.05)
    spreads = np.sqrt((cube[..., None] * middle**2).sum((0, 1, 2)) / cube.sum()) * width
    np.testing.assert_allclose(spreads, 20 / np.sqrt(5), rtol=0.08)  # of a uniform ball of radius 20 mm


def test_the_longest_side_fills_the_cube_but_for_the_margin():
    mask = np.zeros((60, 40, 40), bool)
    mask[6:54, 10:30, 10:20] = True
    cube = to_cube(mask[..., None], mask, np.ones(3), 48)[..., 0] >= 0.5
    sides = [high - low for low, high in bounding_box(cube)]
    np.testing.assert_allclose(sides, 48 * 0.88 * np.array([1, 20 / 48, 10 / 48]), atol=1)


def test_fine_detail_is_averaged_not_aliased():
    stripes = np.zeros((96, 96, 96, 1), np.float32)
    stripes[::2] = 1
    inside = to_cube(stripes, np.ones((96, 96, 96), bool), np.ones(3), 16)[3:-3, 3:-3, 3:-3]
    np.testing.assert_allclose(inside, 0.5, atol=0.02)


def test_an_empty_border_does_not_matter():
    mask = ball((30, 30, 30), (12, 15, 17), 8, (1, 1, 1))
    values = np.random.default_rng(0).random((30, 30, 30, 2)) * mask[..., None]
    padded = np.pad(values, [(3, 9), (7, 1), (5, 5), (0, 0)])
    wide = np.pad(mask, [(3, 9), (7, 1), (5, 5)])
    np.testing.assert_allclose(to_cube(padded, wide, np.ones(3), 12), to_cube(values, mask, np.ones(3), 12), atol=1e-5)


@pytest.mark.parametrize("border", [0, 3])
def test_fine_cubes_keep_the_outermost_voxels(border):
    """Wide voxels on a finer grid: half of the last voxel lies beyond its middle, at the volume's border or not."""
    mask = np.pad(np.ones((6, 4, 2), bool), border)
    cube = to_cube(mask[..., None], mask, np.array([1.0, 1.0, 3.0]), 48)[..., 0] >= 0.5
    sides = [high - low for low, high in bounding_box(cube)]
    np.testing.assert_allclose(sides, 48 * 0.88 * np.array([1, 4 / 6, 1]), atol=1.1)


def test_bounding_box():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 2, 3:] = True
    assert bounding_box(mask) == [(1, 4), (2, 3), (3, 7)]


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"to_cube needs scipy: pip install scipy"):
        to_cube(np.ones((4, 4, 4, 1)), np.ones((4, 4, 4), bool), np.ones(3), 8)
