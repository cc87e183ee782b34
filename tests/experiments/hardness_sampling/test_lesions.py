"""Tests the simulation of tumours and scanners on an anatomy like an egg."""

import numpy as np
import pytest
from scipy import ndimage

from experiments.hardness_sampling import lesions
from experiments.hardness_sampling.lesions import CENTRES, REGIONS, simulate
from tests.experiments.hardness_sampling.cases import GRID, SHARES, egg


@pytest.fixture(scope="module")
def cases():
    return simulate([egg()], (7, 0), 20, SHARES, GRID)


def test_record(cases):
    assert cases.images.shape == (20, GRID, GRID, GRID, 4) and cases.images.dtype == np.float32
    assert cases.labels.shape == (20, GRID, GRID, GRID) and cases.labels.dtype == np.int8
    assert cases.centres.shape == (20,) and cases.centres.dtype == np.int32
    assert np.isfinite(cases.images).all()


def test_images_are_standard_inside_the_head_and_zero_outside(cases):
    for image in cases.images:
        head = (image != 0).any(-1)
        assert 0.1 < head.mean() < 0.6
        np.testing.assert_allclose(image[head].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(image[head].std(0), 1, atol=1e-3)


def test_regions_are_there_nested_around_each_other_and_in_the_head(cases):
    for image, label in zip(cases.images, cases.labels, strict=True):
        sizes = [(label >= value).sum() for value in REGIONS.values()]
        assert sizes[0] > sizes[1] > sizes[2] >= lesions.SMALLEST and sizes[0] < 0.3 * (image[..., 0] != 0).sum()
        assert ((image != 0).any(-1) | (label == 0)).all()
        touched = ndimage.binary_dilation(label == 3)  # the enhancing rim touches its core or, at most, oedema
        assert (label[touched] >= 1).any()


@pytest.mark.parametrize(
    ("shares", "counts"),
    [((1, 1, 1, 1), [5, 5, 5, 5]), (SHARES, [8, 6, 4, 2]), ((0, 0, 0, 9), [0, 0, 0, 20]), ((3, 3, 3, 1), [6, 6, 6, 2])],
)
def test_centres_have_their_shares_exactly_and_in_random_order(shares, counts):
    drawn = lesions._centres(np.random.default_rng(0), 20, shares)
    assert np.bincount(drawn, minlength=4).tolist() == counts
    assert drawn.dtype == np.int32 and ((np.diff(drawn) < 0).any() or max(counts) == 20)


def test_the_default_of_6_percent_gives_the_rare_centre_a_few_of_56():
    drawn = lesions._centres(np.random.default_rng(0), 56, (0.313, 0.313, 0.313, 0.061))
    assert (drawn == len(CENTRES) - 1).sum() == 3


def test_the_same_seed_gives_the_same_cases_and_another_seed_others(cases):
    again = simulate([egg()], (7, 0), 20, SHARES, GRID)
    for first, second in zip(cases, again, strict=True):
        np.testing.assert_array_equal(first, second)
    other = simulate([egg()], (7, 1), 20, SHARES, GRID)
    assert (other.labels != cases.labels).any((1, 2, 3)).all()


def test_more_cases_begin_with_the_same_deformations_and_tumours():
    few, many = (simulate([egg()], 3, n, (1, 0, 0, 0), GRID) for n in (2, 4))
    np.testing.assert_array_equal(few.images, many.images[:2])
    np.testing.assert_array_equal(few.labels, many.labels[:2])


def test_test_cases_have_deformations_that_training_has_not():
    rng = np.random.default_rng
    training, test = (
        [lesions._deform(stream, egg().tissues) for stream in map(rng, np.random.SeedSequence((7, part)).spawn(9)[1:])]
        for part in (0, 1)
    )
    apart = [np.abs(a - b).mean() for a in test for b in training]
    assert min(apart) > 0.02  # of a voxel's tissue, on average over the grid
    assert all(np.abs(a - egg().tissues).mean() > 0.02 for a in training + test)


def test_deformed_tissues_stay_fractions_of_about_the_same_size():
    for seed in range(5):
        tissues = lesions._deform(np.random.default_rng(seed), egg().tissues)
        assert tissues.shape == (GRID, GRID, GRID, 3) and tissues.min() >= 0 and tissues.sum(-1).max() <= 1 + 1e-5
        assert 0.6 < tissues.sum() / egg().tissues.sum() < 1.6


def contrast(cases, channel, region, around):
    """Mean difference of a label to another label in a channel, for each centre."""
    differences = [
        image[label == region, channel].mean() - image[label == around, channel].mean()
        for image, label in zip(cases.images, cases.labels, strict=True)
    ]
    return np.array([np.mean(np.array(differences)[cases.centres == centre]) for centre in range(len(CENTRES))])


def test_tumours_have_the_contrasts_of_gliomas_but_the_rare_centre_is_another_matter():
    balanced = simulate([egg()], 11, 40, (1, 1, 1, 1), GRID)
    t1ce, flair = (lesions.CHANNELS.index(name) for name in ("t1ce", "flair"))
    assert (contrast(balanced, flair, 1, 0) > 0.5).all()  # oedema is bright in flair
    rim = contrast(balanced, t1ce, 3, 1)  # the rim is brighter than the oedema around it
    assert (rim[:-1] > 0.6).all() and 0 < rim[-1] < 0.75 * rim[:-1].min()
    core = contrast(balanced, t1ce, 3, 2)  # and than the necrosis in it, but where the images are taken late
    assert (core[:-1] > 0.5).all() and core[-1] < -0.3
    assert CENTRES[-1] == "low field" and len(CENTRES) == 4


@pytest.mark.parametrize("shares", [(1, 1, 1), (1, 1, 1, -1), (0, 0, 0, 0), (1, 1, 1, np.nan)])
def test_shares_must_be_one_number_per_centre(shares):
    with pytest.raises(ValueError, match="centre_shares must be 4 non-negative numbers with a positive sum, got"):
        simulate([egg()], 0, 1, shares, GRID)


def test_a_coarse_grid_is_refused_and_the_coarsest_works():
    with pytest.raises(ValueError, match="grid must be at least 16, got 15"):
        simulate([egg(15)], 0, 1, SHARES, 15)
    coarse = simulate([egg(16)], 0, 5, SHARES, 16)
    assert ((coarse.labels == 3).sum((1, 2, 3)) >= lesions.SMALLEST).all()


@pytest.mark.parametrize("anatomies", [[], [egg(16)]])
def test_anatomies_must_be_on_the_grid(anatomies):
    with pytest.raises(ValueError, match=r"anatomies must be on a grid \(32, 32, 32, 3\), got"):
        simulate(anatomies, 0, 1, SHARES, GRID)
