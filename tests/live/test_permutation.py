"""Tests the keyed permutation: every epoch once through the domain, in orders that look random and differ."""

import collections
import itertools
import math

import numpy as np
import pytest

from mixjax.live.permutation import permuted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 511, 512, 513, 529, 530, 1000, 4097])
def test_every_epoch_goes_once_through_the_domain(size):
    epochs = permuted(3, 5, np.arange(3 * size), size).reshape(3, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (3, 1)))
    assert size < 7 or not np.array_equal(epochs[0], epochs[1])


def test_every_size_is_permuted():
    rng = np.random.default_rng(0)
    for size in [*range(1, 40), *rng.integers(40, 6000, 60).tolist()]:
        epoch = int(rng.integers(0, 2**20))
        examples = permuted(7, size, np.arange(epoch * size, (epoch + 1) * size), size)
        np.testing.assert_array_equal(np.sort(examples), np.arange(size))


@pytest.mark.parametrize("size", [77, 700])
def test_rows_may_be_asked_for_in_any_order(size):
    rows = np.random.default_rng(0).permutation(3000)
    np.testing.assert_array_equal(permuted(1, 2, rows, size), permuted(1, 2, np.arange(3000), size)[rows])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_orders_of_small_domains_are_equally_frequent(size):
    num_epochs = 6000
    orders = permuted(0, 11, np.arange(num_epochs * size), size).reshape(num_epochs, size)
    counts = collections.Counter(map(tuple, orders.tolist()))
    expected = num_epochs / math.factorial(size)
    observed = np.array([counts[order] for order in itertools.permutations(range(size))])
    freedom = observed.size - 1
    statistic = np.sum((observed - expected) ** 2 / expected)
    # Five standard deviations of the chi-squared distribution.
    assert statistic < freedom + 5.0 * math.sqrt(2.0 * freedom) + 5.0


@pytest.mark.parametrize("size", [20, 512, 513, 1025])
def test_no_example_and_no_distance_is_preferred(size):
    num_epochs = 1000
    orders = permuted(0, 3, np.arange(num_epochs * size), size).reshape(num_epochs, size)
    distances = np.diff(orders, axis=1) % size
    for values, choices in [(orders[:, 0], size), (orders[:, -1], size), (distances - 1, size - 1)]:
        counts = np.bincount(values.ravel(), minlength=choices)
        expected = values.size / choices
        statistic = np.sum((counts - expected) ** 2 / expected)
        assert abs(statistic - (choices - 1)) < 5.0 * math.sqrt(2.0 * (choices - 1))
    # Two independent orders agree in one place on average.
    agree = np.sum(orders[:-1] == orders[1:])
    assert abs(agree - num_epochs) < 5.0 * math.sqrt(num_epochs)


def test_seeds_and_keys_give_other_orders():
    rows = np.arange(1000)
    orders = [permuted(seed, key, rows, 1000) for seed, key in [(0, 0), (1, 0), (0, 1), (2**64 - 1, 2**64 - 1)]]
    for one, other in itertools.combinations(orders, 2):
        # Two independent permutations agree in one place on average.
        assert np.sum(one == other) < 12


def test_neighbours_are_spread_over_the_domain():
    size = 2**33 + 5
    examples = permuted(0, 0, np.arange(20_000), size)
    assert len(np.unique(examples)) == 20_000 and examples.min() >= 0 and examples.max() < size
    counts, _ = np.histogram(examples, bins=50, range=(0, size))
    assert np.abs(counts - 400).max() < 5 * 20
    assert abs(np.corrcoef(examples[:-1], examples[1:])[0, 1]) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("size", [2**20 + 1, 2**32 - 1, 2**39 + 12345, 2**40 - 1, 2**40])
def test_rows_of_large_domains_are_different_examples(size):
    # The first and the last rows of an epoch, and of the one after.
    rows = np.concatenate([start + np.arange(3000) for start in (0, size - 3000, size, 2 * size - 3000)])
    examples = permuted(1, 1, rows, size)
    assert examples.min() >= 0 and examples.max() < size
    for epoch in np.split(examples, 2):
        assert len(np.unique(epoch)) == epoch.size
    assert np.sum(examples[:6000] == examples[6000:]) < 5


def test_a_domain_of_the_largest_size_and_a_late_row():
    examples = permuted(0, 0, np.array([2**50, 2**50 + 1]), 2**40)
    assert ((examples >= 0) & (examples < 2**40)).all() and examples[0] != examples[1]
