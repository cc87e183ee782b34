"""Effective sample size, ages and the hardest examples."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import effective_sample_size, hardest, hardness, with_ages


@pytest.mark.parametrize("beta", [0.0, 1.0, 100.0])
def test_effective_sample_size(beta):
    losses = np.linspace(0, 1, 200)
    sampler = hardness(200, beta)
    p = np.exp(beta * losses) / np.exp(beta * losses).sum()
    ess = effective_sample_size(sampler.log_probs(sampler.init(losses)))
    np.testing.assert_allclose(ess, 1 / (p**2).sum(), rtol=1e-4)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (10, 3), (64, 64), (1000, 5), (1000, 100), (100_000, 40)])
def test_hardest_is_a_sort(n, k):
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    indices, top = jax.jit(hardest, static_argnums=1)(values, k)
    np.testing.assert_array_equal(indices, np.argsort(-values, kind="stable")[:k])
    np.testing.assert_array_equal(top, values[indices])


def test_hardest_among_ties_are_the_first():
    assert hardest(jnp.zeros(500), 3)[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"k must be in \[1, 5\]"):
        hardest(jnp.zeros(5), 6)


def test_ages_and_visits():
    sampler = with_ages(hardness(4, 1.0, decay=0.5))
    state = sampler.init(jnp.zeros(4), jax.random.key(0))
    assert state.ages.tolist() == [0, 0, 0, 0]
    for batch in ([0, 1], [1, 1], [3, -1], [0, 9]):
        state = sampler.update(state, jnp.array(batch), jnp.ones(2))
    assert state.ages.tolist() == [0, 2, 4, 1]
    assert state.visits.tolist() == [2, 2, 0, 1]


def test_ages_change_nothing_else():
    plain = hardness(20, 2.0)
    aged = with_ages(plain)
    state, other = plain.init(jnp.arange(20.0) / 10), aged.init(jnp.arange(20.0) / 10)
    for key in jax.random.split(jax.random.key(0), 3):
        (indices, weights), again = plain.sample(state, key, 5), aged.sample(other, key, 5)
        np.testing.assert_array_equal(indices, again[0])
        np.testing.assert_array_equal(weights, again[1])
        args = indices, jnp.cos(indices.astype(jnp.float32))
        np.testing.assert_array_equal(
            plain.importance_weights(state, *args, kind="tree"), aged.importance_weights(other, *args, kind="tree")
        )
        state, other = plain.update(state, *args), aged.update(other, *args)
    np.testing.assert_array_equal(state.values, other.values)
    np.testing.assert_array_equal(plain.log_probs(state), aged.log_probs(other))
    chex.assert_trees_all_close(aged.rebuild(other).inner.sums, other.inner.sums, rtol=1e-6)
