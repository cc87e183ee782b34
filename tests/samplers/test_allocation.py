"""Exact integer counts: optimal against every alternative, and against a plain greedy at size."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax.samplers import allocate, counts_to_ids

jitted = jax.jit(allocate, static_argnums=1)
to_ids = jax.jit(counts_to_ids, static_argnums=1)


@functools.cache
def batched(batch_size):
    return jax.jit(jax.vmap(lambda weights: allocate(weights, batch_size)))


def variance(weights, counts):
    """Paper 000's eq. 14 with q = c v, in float64: infinite where a positive weight has no count."""
    q = np.float64(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q > 0, q**2 / counts, 0.0).sum(axis=-1)


def all_counts(num_domains, batch_size):
    """Every vector of non-negative integers with that sum."""
    bars = itertools.combinations(range(batch_size + num_domains - 1), num_domains - 1)
    bars = np.array(list(bars), int).reshape(-1, num_domains - 1)
    edges = np.concatenate(
        [np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), batch_size + num_domains - 1)], 1
    )
    return np.diff(edges, axis=1) - 1


def small_cases(num_domains, batch_size, n=200):
    """Weights of every kind: generic, tied, with zeros, over many orders of magnitude, and tiny."""
    rng = np.random.default_rng(100 * num_domains + batch_size)
    generic = rng.dirichlet(np.ones(num_domains), n)
    tied = rng.integers(1, 4, (n, num_domains)).astype(float)
    zeros = generic * (rng.random((n, num_domains)) > 0.4)
    zeros[:, 0] += zeros.sum(axis=1) == 0
    wide = 10.0 ** rng.uniform(-12, 0, (n, num_domains))
    tiny = np.where(rng.random((n, num_domains)) > 0.5, 1e-30, generic)
    return np.concatenate([generic, tied, zeros, wide, tiny]).astype(np.float32)


@pytest.mark.parametrize("num_domains", [2, 3, 4])
@pytest.mark.parametrize("extra", [0, 2, 7])
def test_no_other_counts_are_better(num_domains, extra):
    batch_size = num_domains + extra
    weights = small_cases(num_domains, batch_size)
    counts = np.asarray(batched(batch_size)(weights))
    assert (counts.sum(axis=1) == batch_size).all()
    assert ((counts > 0) == (weights > 0)).all()
    alternatives = all_counts(num_domains, batch_size)
    best = np.array([variance(row, alternatives).min() for row in weights])
    assert np.isfinite(best).all()
    np.testing.assert_allclose(variance(weights, counts), best, rtol=1e-6)


def plain_greedy(weights, batch_size):
    """One example at a time to where q^2 (1/n - 1/(n + 1)) is largest, in float64."""
    q2 = np.square(np.float64(weights))
    counts = (q2 > 0).astype(int)
    for _ in range(batch_size - counts.sum()):
        counts[np.argmax(np.where(q2 > 0, q2 / np.maximum(counts * (counts + 1.0), 1.0), -1.0))] += 1
    return counts


@pytest.mark.parametrize(
    ("num_domains", "batch_size", "kind"),
    [
        *itertools.product([10, 200], [200, 5000], ["generic", "power law", "with zeros"]),
        (200, 100_000, "power law"),
    ],
)
def test_large_batches_against_a_plain_greedy(num_domains, batch_size, kind):
    rng = np.random.default_rng(0)
    weights = {
        "generic": rng.uniform(0.5, 1.5, num_domains),
        "power law": np.arange(1.0, num_domains + 1) ** -3,
        "with zeros": rng.random(num_domains) * (rng.random(num_domains) > 0.5) + 0.1 * (np.arange(num_domains) == 3),
    }[kind].astype(np.float32)
    counts = np.asarray(jitted(weights, batch_size))
    expected = plain_greedy(weights, batch_size)
    assert counts.sum() == batch_size
    assert ((counts > 0) == (weights > 0)).all()
    assert np.abs(counts - expected).max() <= 1  # float32 may break near-ties the other way
    np.testing.assert_allclose(variance(weights, counts), variance(weights, expected), rtol=1e-6)


def test_counts_by_hand():
    assert allocate([0.98, 0.02, 0.0], 5).tolist() == [4, 1, 0]
    # 9 : 1 in 4: the second goes to 9/sqrt(2), the third to 9/sqrt(6), both above 1/sqrt(2)
    assert jitted(np.float32([9.0, 1.0]), 4).tolist() == [3, 1]
    assert jitted(np.float32([1.0, 1.0]), 4).tolist() == [2, 2]
    assert jitted(np.float32([0.3]), 5).tolist() == [5]
    # 3 : 2 : 1 of 6 are exact
    assert jitted(np.float32([3.0, 2.0, 1.0]), 6).tolist() == [3, 2, 1]


def test_ties_go_to_the_lower_index():
    assert jitted(np.float32([1.0, 1.0, 1.0]), 5).tolist() == [2, 2, 1]
    assert jitted(np.float32([1.0, 0.0, 1.0]), 5).tolist() == [3, 0, 2]


@pytest.mark.parametrize("tiny", [1e-30, 1e-37, np.finfo(np.float32).tiny])
def test_a_tiny_weight_is_not_zero(tiny):
    assert jitted(np.float32([1.0, tiny, 1.0]), 9).tolist() == [4, 1, 4]
    assert jitted(np.float32([1e10, tiny, 1e10]), 9).tolist() == [4, 1, 4]


def test_scale_does_not_matter():
    weights = np.random.default_rng(0).random(6)
    expected = jitted(weights, 50).tolist()
    for scale in (1e-20, 7.0, 1e20):
        assert jitted(weights * scale, 50).tolist() == expected


@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(
    st.lists(st.floats(0, 1, width=32, allow_subnormal=False), min_size=5, max_size=5).filter(any),
    st.sampled_from([5, 6, 23]),
)
def test_invariants(weights, batch_size):
    weights = np.float32(weights)
    counts = np.asarray(batched(batch_size)(weights[None]))[0]
    assert counts.dtype == np.int32 and counts.sum() == batch_size
    assert ((counts > 0) == (weights > 0)).all()
    larger = weights[:, None] > weights * 1.0001
    assert (counts[:, None] >= counts)[larger].all()  # a larger weight never gets less
    # moving one example from j to i never helps
    q = np.float64(weights) / weights.max()
    gain, loss = q**2 / np.maximum(counts * (counts + 1.0), 1), q**2 / np.maximum(counts * (counts - 1.0), 1e-30)
    movable = (counts[None, :] > 1) & (weights[:, None] > 0)
    assert (gain[:, None] <= loss[None, :] * (1 + 1e-5))[movable].all()


def test_jit_and_vmap_equal_eager():
    weights = small_cases(3, 5, n=1)
    expected = np.stack([allocate(row, 5) for row in weights])
    np.testing.assert_array_equal(batched(5)(weights), expected)
    np.testing.assert_array_equal(np.stack([jitted(row, 5) for row in weights]), expected)


@pytest.mark.parametrize("batch_size", [-1, 0, 2, 2**24])
def test_batch_size_must_fit(batch_size):
    with pytest.raises(ValueError, match=r"batch_size must be in \[3, 2\^24\)"):
        allocate([0.5, 0.5, 0.0], batch_size)


@pytest.mark.parametrize("weights", [[], [[0.5, 0.5]], [0.0, 0.0], [0.5, -0.5], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_must_be_non_negative_with_mass(weights):
    with pytest.raises(ValueError, match=r"weights must (be|have)"):
        allocate(weights, 8)


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_counts_to_ids_is_repeat(counts):
    ids = to_ids(np.array(counts), 40)[: sum(counts)]
    np.testing.assert_array_equal(ids, np.repeat(np.arange(4), counts))
    assert ids.dtype == jnp.int32


def test_ids_of_allocated_counts():
    ids = jax.jit(lambda w: counts_to_ids(allocate(w, 12), 12))(jnp.array([0.5, 0.0, 0.25, 0.25]))
    np.testing.assert_array_equal(np.bincount(ids, minlength=4), [6, 0, 3, 3])
