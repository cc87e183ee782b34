"""Random domain ids: how far counts stray, which domains are never drawn, and E[n_d] = B q_d."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixjax.samplers import draws, multinomial, stratified, systematic

DRAWS = {"systematic": systematic, "stratified": stratified, "multinomial": multinomial}
every_draw = pytest.mark.parametrize("name", DRAWS)
N, RUNS = 20, 2000


@functools.partial(jax.jit, static_argnames=("name", "n"))
def draw_runs(key, weights, name, n):
    keys = jax.random.split(key, RUNS)
    return jax.vmap(lambda key: jnp.bincount(DRAWS[name](key, weights, n), length=weights.size))(keys)


def counts_of(name, seed, weights, n=N):
    """Counts of five domains in each of 2000 runs, ``[RUNS, 5]``."""
    return np.asarray(draw_runs(jax.random.key(seed), np.float32(weights), name, n))


def simplex(seed, size=5):
    return np.random.default_rng(seed).dirichlet(np.ones(size)).astype(np.float32)


draw_ids = jax.jit(lambda key, weights, name, n=N: DRAWS[name](key, weights, n), static_argnames=("name", "n"))
integer_cdf = jax.jit(draws._integer_cdf)
find = jax.jit(draws._find)


@pytest.mark.parametrize(("name", "within", "n"), [("systematic", 1, N), ("systematic", 1, 300), ("stratified", 2, N)])
def test_counts_are_close_to_their_mean(name, within, n):
    for seed in range(4):
        weights = simplex(seed)
        counts = counts_of(name, seed, weights, n)
        assert (counts.sum(axis=1) == n).all()
        assert (np.abs(counts - n * np.float64(weights)) < within + 1e-4 * n).all()


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any), st.integers(0, 2**31))
def test_systematic_is_within_one(weights, seed):
    weights = np.float64(weights) / sum(weights)
    counts = counts_of("systematic", seed, weights)
    assert (np.abs(counts - N * weights) < 1 + 1e-4).all()
    assert (counts[:, weights == 0] == 0).all()


def test_multinomial_strays_further():
    assert np.abs(counts_of("multinomial", 0, np.full(5, 0.2)) - N * 0.2).max() > 3


@every_draw
def test_mean_counts_are_n_q(name):
    weights = np.float32([0.033, 0.0, 0.507, 0.17, 0.29])
    counts = np.concatenate([counts_of(name, seed, weights) for seed in range(8)])
    mean, stderr = counts.mean(axis=0), counts.std(axis=0) / np.sqrt(len(counts))
    assert (np.abs(mean - N * np.float64(weights)) <= 4 * stderr + 1e-6).all()
    assert stderr[0] > 0 and mean[1] == 0


def test_multinomial_counts_have_the_multinomial_covariance():
    q = np.array([0.1, 0.2, 0.05, 0.25, 0.4])
    counts = np.concatenate([counts_of("multinomial", seed, q) for seed in range(8)])
    expected = N * (np.diag(q) - np.outer(q, q))
    products = (counts - N * q)[:, :, None] * (counts - N * q)[:, None, :]
    stderr = products.std(axis=0) / np.sqrt(len(counts))
    assert (np.abs(products.mean(axis=0) - expected) < 4 * stderr).all()
    chi2 = np.square(counts - N * q) @ (1 / (N * q))  # mean D - 1, variance 2 (D - 1) + (sum 1/q - D^2 - 2 D + 2) / n
    spread = np.sqrt((8 + (np.sum(1 / q) - 25 - 10 + 2) / N) / len(counts))
    assert abs(chi2.mean() - 4) < 4 * spread


def test_multinomial_draws_are_independent():
    ids = np.asarray(draw_ids(jax.random.key(3), np.float32([0.25, 0.75]), "multinomial", 40_000))
    first, second = ids[:-1] == 0, ids[1:] == 0
    assert abs((first & second).mean() - 1 / 16) < 4 * np.sqrt(1 / 16 * 15 / 16 / 40_000) * 1.5


@every_draw
@pytest.mark.parametrize("support", [[0], [2], [4], [0, 4], [1, 3], [2, 3, 4]])
def test_zero_weights_are_never_drawn(name, support):
    weights = np.zeros(5, np.float32)
    weights[support] = np.random.default_rng(0).uniform(0.1, 1.0, len(support))
    counts = counts_of(name, 4, weights)
    assert (counts.sum(axis=0) > 0).nonzero()[0].tolist() == support


@pytest.mark.parametrize("size", [6, 1000])
def test_no_quantile_leads_to_a_zero_weight(size):
    rng = np.random.default_rng(size)
    weights = (rng.random(size) * (rng.random(size) > 0.5)).astype(np.float32)
    weights[[0, -1]] = 0.0
    cdf = np.asarray(integer_cdf(weights))
    points = np.unique(np.concatenate([[0], cdf, cdf[cdf > 0] - 1, cdf + 1])).astype(np.uint32)
    ids = np.asarray(find(cdf, points))
    assert (weights[ids] > 0).all() and (np.diff(ids) >= 0).all()


@pytest.mark.parametrize("size", [3, 1000, 1_000_000])
def test_every_domain_has_its_width(size):
    """In float32 a million domains leave thousands without one."""
    q = np.float64(np.random.default_rng(7).exponential(size=size)).astype(np.float32)
    q[::7] *= 1e-12
    cdf = np.asarray(integer_cdf(q)).astype(np.int64)
    widths = np.diff(cdf, prepend=0)
    exact = np.float64(q) / np.float64(q).sum()
    assert (widths >= 1).all()
    np.testing.assert_allclose(widths / cdf[-1], exact, rtol=1e-5, atol=4e-9)
    np.testing.assert_array_equal(find(cdf.astype(np.uint32), (cdf - 1).astype(np.uint32)), np.arange(size))


@pytest.mark.slow
def test_systematic_is_within_one_at_a_million_domains():
    q = np.random.default_rng(0).exponential(size=1_000_000).astype(np.float32)
    ids = np.asarray(draw_ids(jax.random.key(0), q, "systematic", 1_000_000))
    expected = 1_000_000 * np.float64(q) / np.float64(q).sum()
    assert np.abs(np.bincount(ids, minlength=1_000_000) - expected).max() < 1.001


@every_draw
def test_ids_are_int32_of_the_asked_length(name):
    ids = jax.eval_shape(lambda: DRAWS[name](jax.random.key(0), [0.5, 0.5], 5))
    assert ids.shape == (5,) and ids.dtype == jnp.int32
    assert draw_ids(jax.random.key(0), np.float32([1.0]), name, 1).tolist() == [0]


@pytest.mark.parametrize("name", ["systematic", "stratified"])
def test_quantile_draws_ascend(name):
    ids = draw_ids(jax.random.key(5), simplex(0), name)
    assert (np.diff(ids) >= 0).all()


@every_draw
def test_keys_decide(name):
    weights = simplex(5)
    np.testing.assert_array_equal(counts_of(name, 0, weights), counts_of(name, 0, weights))
    counts = counts_of(name, 0, weights)
    assert len(np.unique(counts, axis=0)) > 3 and not np.array_equal(counts, counts_of(name, 1, weights))


@every_draw
def test_weights_need_not_be_normalised(name):
    a, b = (draw_ids(jax.random.key(6), np.float32(scale * simplex(1)), name) for scale in (1.0, 16.0))
    np.testing.assert_array_equal(a, b)


@every_draw
def test_jit_and_vmap_equal_eager(name):
    keys, weights = jax.random.split(jax.random.key(7), 3), np.stack([simplex(seed) for seed in range(3)])
    batched = jax.jit(jax.vmap(lambda key, w: DRAWS[name](key, w, N)))(keys, weights)
    for run in range(3):
        np.testing.assert_array_equal(batched[run], draw_ids(keys[run], weights[run], name))
    np.testing.assert_array_equal(batched[0], DRAWS[name](keys[0], weights[0], N))


@every_draw
@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [[0.5, 0.5]]])
def test_weights_must_be_non_negative_with_mass(name, weights):
    with pytest.raises(ValueError, match=r"weights must (be|have)"):
        DRAWS[name](jax.random.key(0), weights, 4)
