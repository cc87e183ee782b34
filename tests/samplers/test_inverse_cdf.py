"""Choices by inverse transform: which share a number falls into, and that a share of zero gets none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import draws, inverse_cdf

ENDS = pytest.mark.parametrize("ends_of", [inverse_cdf.ends_of, inverse_cdf.ends_of_rows])


@ENDS
def test_ends_by_hand(ends_of):
    ends = ends_of(jnp.array([[1.0, 0.0, 2.0], [0.0, 0.5, 0.5]]))
    assert ends.tolist() == [[1.0, -1.0, 3.0], [-1.0, 0.5, 1.0]]


@pytest.mark.parametrize("size", [1, 8, 64, 65, 300])
def test_both_ways_to_add_up_agree(size):
    shares = np.random.default_rng(size).gamma(1.0, 1.0, (7, size)).astype(np.float32)
    np.testing.assert_allclose(inverse_cdf.ends_of(shares), inverse_cdf.ends_of_rows(shares), rtol=1e-5)


@ENDS
def test_numbers_fall_into_shares_in_order(ends_of):
    ends = ends_of(jnp.array([[1.0, 0.0, 2.0, 1.0]]))[0]
    chosen = inverse_cdf.choose(jnp.array([0.0, 0.2, 0.25, 0.7, 0.75, 0.999]), ends)
    assert chosen.tolist() == [0, 0, 2, 2, 3, 3] and chosen.dtype == jnp.int32


@pytest.mark.parametrize("shares", [[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [2.0, 0.0, 0.0]])
def test_a_share_of_zero_is_never_chosen(shares):
    shares = jnp.array(shares)
    for uniform in (0.0, 0.5, 1 - 2**-24):
        assert shares[inverse_cdf.choose(jnp.float32(uniform), inverse_cdf.ends_of(shares))] > 0


def test_the_first_is_chosen_where_all_are_zero():
    assert inverse_cdf.choose(jnp.array([0.0, 0.9]), inverse_cdf.ends_of(jnp.zeros(4))).tolist() == [0, 0]


def test_every_row_has_a_number_of_its_own():
    shares = jnp.array([[1.0, 3.0], [3.0, 1.0]])
    assert inverse_cdf.choose(jnp.array([0.5, 0.5]), inverse_cdf.ends_of_rows(shares)).tolist() == [1, 0]


def test_owners_are_repeat():
    counts = np.array([0, 3, 0, 0, 2, 1])
    owners = inverse_cdf.owners(jnp.cumsum(counts), jnp.arange(6))
    np.testing.assert_array_equal(owners, np.repeat(np.arange(6), counts))
    assert owners.dtype == jnp.int32


def test_one_choice_follows_the_weights():
    weights, runs = np.float32([2.0, 0.0, 5.0, 3.0]), 20_000
    keys = jax.random.split(jax.random.key(0), runs)
    counts = np.bincount(jax.jit(jax.vmap(draws.choose, (0, None)))(keys, weights), minlength=4)
    p = weights / weights.sum()
    assert (np.abs(counts - runs * p) <= 4.5 * np.sqrt(runs * p * (1 - p))).all() and counts[1] == 0


def test_one_choice_is_the_first_end_above_the_number():
    """Bit by bit the choice of an argmax over ends, whatever the size."""
    for size in (1, 5, 64, 1000):
        weights = np.random.default_rng(size).gamma(0.3, 1.0, size).astype(np.float32)
        weights[::3] *= size < 3
        for seed in range(20):
            key = jax.random.key(seed)
            ends = jnp.where(weights > 0, jnp.cumsum(weights), -1.0)
            expected = jnp.argmax(ends > jax.random.uniform(key) * ends.max())
            assert draws.choose(key, weights) == expected
