"""Tests simulated epochs: proxies repeat each domain as often as the big run."""

import numpy as np
import pytest

from mixjax import design


def test_a_proxy_repeats_each_domain_as_often_as_the_big_run():
    sizes, mixture = np.array([1_000_000, 30_000, 5_000]), np.array([0.5, 0.3, 0.2])
    big, proxy = 4_000_000, 40_000
    small = design.proxy_sizes(sizes, big, proxy)
    np.testing.assert_allclose(mixture * proxy / small, mixture * big / sizes, rtol=1e-9)
    assert design.proxy_sizes([10, 0, 1], 100, 1).tolist() == [1, 0, 1]
    assert design.proxy_sizes(sizes, big, big).tolist() == sizes.tolist()


def test_subsets_are_nested_and_the_same_again():
    large, small = design.subset(100, 30, seed=1), design.subset(100, 10, seed=1)
    assert set(small) < set(large) and len(set(large)) == 30 and large.min() >= 0 and large.max() < 100
    assert (np.diff(large) > 0).all()
    np.testing.assert_array_equal(design.subset(100, 30, seed=1), large)
    assert not np.array_equal(design.subset(100, 30, seed=2), large)
    assert design.subset(5, 0).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([10, -1], 10, 1), "sizes must be an integer of at least 0"),
        (([10.5], 10, 1), "sizes must be an integer of at least 0"),
        ((10, 10, 1), r"sizes must be \[D\], one per domain, got shape \(\)"),
        (([10], 0, 1), "budget_big must be positive, got 0"),
        (([10], 10, -1), "budget_proxy must be positive, got -1"),
        (([10], 10, 20), "budget_proxy must be at most budget_big, got 20 and 10"),
    ],
)
def test_sizes_and_budgets_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        design.proxy_sizes(*arguments)


def test_a_subset_cannot_be_larger_than_its_domain():
    with pytest.raises(ValueError, match="num must be at most the size of the domain, 3, got 4"):
        design.subset(3, 4)
