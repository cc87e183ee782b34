"""NumPy's Threefry against jax.random, bit by bit."""

import jax
import numpy as np
import pytest

from mixjax.samplers.scored import threefry

SEEDS = (0, 1, 42, 2**31 - 1)
SHAPES = ((), (1,), (7,), (3, 5), (2, 3, 7), (50_000,))


def data(key):
    return np.asarray(jax.random.key_data(key))


def test_known_answer():
    # The Random123 library's vector for threefry2x32, 20 rounds, counter and key 0.
    words = threefry.threefry2x32(np.zeros(2, np.uint32), np.uint32(0))
    assert [hex(x) for x in words.ravel()] == ["0x6b200159", "0x99ba4efe"]


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_are_jaxs(seed):
    ours, theirs = threefry.key(seed), jax.random.key(seed)
    np.testing.assert_array_equal(ours, data(theirs))
    for num in (1, 2, 3, 1000):
        np.testing.assert_array_equal(threefry.split(ours, num), data(jax.random.split(theirs, num)))
    for number in (0, 1, 2**31, 2**32 - 1):
        np.testing.assert_array_equal(threefry.fold_in(ours, number), data(jax.random.fold_in(theirs, number)))
    numbers = np.arange(5)
    folded = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(theirs, numbers)
    np.testing.assert_array_equal(threefry.fold_in(ours, numbers), data(folded))
    assert threefry.split(ours).dtype == threefry.fold_in(ours, 1).dtype == np.uint32


def test_the_largest_seed():
    np.testing.assert_array_equal(threefry.key(2**32 - 1), data(jax.random.key(np.uint32(2**32 - 1))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_jaxs(seed, shape):
    ours, theirs = threefry.key(seed), jax.random.key(seed)
    counters = np.arange(np.prod(shape, dtype=int), dtype=np.uint32).reshape(shape)
    np.testing.assert_array_equal(threefry.random_bits(ours, counters).reshape(shape), jax.random.bits(theirs, shape))
    uniform = threefry.uniform(ours, shape)
    assert uniform.dtype == np.float32 and uniform.shape == shape
    np.testing.assert_array_equal(uniform, jax.random.uniform(theirs, shape))
    gumbel, wanted = threefry.gumbel(ours, shape), np.asarray(jax.random.gumbel(theirs, shape))
    assert gumbel.dtype == np.float32 and gumbel.shape == shape
    # NumPy's log is within 4 ulps; a relative error of the inner logarithm is an absolute error of the outer.
    assert (np.abs(gumbel - wanted) <= 4 * (np.spacing(np.abs(wanted)) + np.finfo(np.float32).eps)).all()


def test_a_zero_uniform_has_a_finite_gumbel():
    assert np.isfinite(threefry.to_gumbel(np.zeros(1, np.uint32))).all()


def test_each_counter_may_have_a_key_of_its_own():
    keys = threefry.split(threefry.key(3), 4)
    rows = threefry.random_bits(keys[:, None], np.arange(6, dtype=np.uint32))
    np.testing.assert_array_equal(rows, [threefry.random_bits(key, np.arange(6, dtype=np.uint32)) for key in keys])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_errors(seed):
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*32\)"):
        threefry.key(seed)
