"""Hardness weighted sampling: distribution, exact weights, extremes; and the faults of other samplers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.samplers import hardness, proportional
from tests.samplers.scored.cases import KEY, LOSSES, PRIOR, VARIANTS, N, both_modes, compiled, expected_p


@functools.lru_cache
def many_batches(variant, replacement, size, widest=4, runs=20_000):
    sampler = compiled(hardness(N, 1.0, replacement=replacement, **VARIANTS[variant]))
    state = sampler.init(LOSSES)
    keys = jax.random.split(jax.random.key(3), runs)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: sampler.sample(state, key, size)))(keys))


@pytest.mark.parametrize("variant", VARIANTS)
def test_probabilities(variant):
    sampler = compiled(hardness(N, 1.0, **VARIANTS[variant]))
    state = sampler.init(LOSSES)
    p, _ = expected_p(**VARIANTS[variant])
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), p, rtol=2e-6, atol=1e-9)
    some = jnp.array([3, 0, 3])
    np.testing.assert_array_equal(sampler.log_probs(state, some), sampler.log_probs(state)[some])


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@both_modes
@pytest.mark.parametrize("variant", VARIANTS)
def test_first_draws_follow_the_probabilities(variant, replacement, widest):
    indices, _ = many_batches(variant, replacement, 4, widest)
    p, _ = expected_p(**VARIANTS[variant])
    counts = np.bincount(indices[:, 0], minlength=N)
    assert (counts[p == 0] == 0).all()
    z = (counts - len(indices) * p)[p > 0] / np.sqrt(len(indices) * p * (1 - p))[p > 0]
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("widest", [4, 1024], indirect=True)
@both_modes
@pytest.mark.parametrize("variant", VARIANTS)
def test_weighted_means_are_unbiased_for_the_prior(variant, replacement, widest):
    indices, weights = many_batches(variant, replacement, 4, widest)
    p, prior = expected_p(**VARIANTS[variant])
    for values in (LOSSES, np.arange(N) == 5, np.ones(N)):
        estimates = (weights * values[indices]).mean(1)
        stderr = estimates.std() / len(estimates) ** 0.5
        assert abs(estimates.mean() - prior @ values) < 4.5 * stderr + 1e-6
    if replacement:
        np.testing.assert_allclose(weights, (prior / np.maximum(p, 1e-30))[indices], rtol=1e-5)


def test_without_replacement_a_plain_mean_is_biased_and_a_weighted_one_is_not():
    """The authors' draw without replacement breaks lemma 3.2; ``weights * p / prior`` mends it."""
    indices, weights = many_batches("plain", False, 4)
    p, prior = expected_p()
    plain, mended = LOSSES[indices].mean(1), (weights * (p / prior)[indices] * LOSSES[indices]).mean(1)
    stderr = mended.std() / len(mended) ** 0.5
    assert abs(mended.mean() - p @ LOSSES) < 4.5 * stderr
    assert abs(plain.mean() - p @ LOSSES) > 10 * stderr
    literal, _ = many_batches("plain", True, 4)
    means = LOSSES[literal].mean(1)
    assert abs(means.mean() - p @ LOSSES) < 4.5 * means.std() / len(means) ** 0.5


def test_without_replacement_the_whole_set_is_a_permutation_of_weight_one():
    sampler = compiled(hardness(N, 3.0, replacement=False))
    indices, weights = sampler.sample(sampler.init(LOSSES), KEY, N)
    assert sorted(indices.tolist()) == list(range(N))
    np.testing.assert_allclose(weights, 1.0, rtol=1e-5)


def test_too_few_examples_to_draw_repeat_the_first_with_weight_zero():
    sampler = compiled(hardness(3, 1.0, prior=[0.0, 1.0, 1.0], replacement=False))
    indices, weights = sampler.sample(sampler.init(1.0), KEY, 3)
    assert set(indices.tolist()) == {1, 2}
    assert indices[2] == indices[0]
    np.testing.assert_allclose(weights, [1.5, 1.5, 0.0], rtol=1e-5)
    np.testing.assert_allclose(np.mean(weights * np.array([7.0, 7.0, 7.0])), 7.0, rtol=1e-5)


@both_modes
def test_beta_zero_is_the_prior_exactly(replacement):
    for prior in (None, PRIOR):
        sampler = compiled(hardness(N, 0.0, prior=prior, replacement=replacement))
        same = sampler.log_probs(sampler.init(1e30 * LOSSES)), sampler.log_probs(sampler.init(0.0))
        np.testing.assert_array_equal(*same)
        np.testing.assert_allclose(np.exp(same[0]), expected_p(0.0, prior)[0], rtol=1e-6)


@functools.partial(jax.jit, static_argnames="replacement")
def four_examples(beta, losses, replacement):
    sampler = hardness(4, beta, replacement=replacement)
    state = sampler.init(losses)
    many, _ = hardness(4, beta).sample(state, KEY, 64)
    importance = sampler.importance_weights(state, jnp.arange(2), losses[:2])
    return jnp.exp(sampler.log_probs(state)), many, *sampler.sample(state, KEY, 2), importance


@both_modes
@pytest.mark.parametrize("beta", [1e6, 1e30, np.inf])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_huge_beta_draws_the_hardest(replacement, beta, scale):
    losses = np.float32([0.1, 0.9, 0.9, -1.0]) * np.float32(scale)
    probs, many, indices, weights, importance = four_examples(beta, losses, replacement)
    np.testing.assert_allclose(probs, [0, 0.5, 0.5, 0], rtol=1e-6)
    assert set(many.tolist()) == {1, 2}
    assert set(indices.tolist()) <= {1, 2}
    assert np.isfinite(weights).all() and np.isfinite(importance).all()


def test_update_of_one_example_by_hand():
    sampler = compiled(hardness(2, 2.0, decay=0.25))
    state = sampler.update(sampler.init(jnp.array([1.0, 1.0])), jnp.array([1]), jnp.array([3.0]))
    assert state.values.tolist() == [1.0, 2.5]
    p = np.exp(2 * 2.5) / (np.exp(2 * 2.5) + np.exp(2.0))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)[1]), p, rtol=1e-6)


def test_clipped_weights_by_hand():
    sampler = compiled(hardness(3, 2.0))
    state = sampler.init(1.0)
    new = 1.0 + np.array([0.1, 5.0, -5.0], np.float32)
    weights = sampler.importance_weights(state, jnp.arange(3), new)
    np.testing.assert_allclose(weights, [np.exp(0.2), 10.0, 0.1], rtol=1e-6)
    wide = hardness(3, 2.0, clip=(1e-9, 1e9)).importance_weights(state, jnp.arange(3), new)
    np.testing.assert_allclose(wide, np.exp(2.0 * (new - 1.0)), rtol=1e-5)
    np.testing.assert_allclose(
        sampler.importance_weights(state, jnp.arange(3), new, "self_normalised"), 3 * wide / wide.sum(), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["clipped", "self_normalised"])
def test_ratios_of_scores_that_were_or_become_zero(kind):
    sampler = compiled(proportional(4, floor=0.5))
    state = sampler.init(jnp.array([0.0, 0.0, 2.0, 2.0]))
    weights = sampler.importance_weights(state, jnp.arange(4), jnp.array([3.0, 0.0, 0.0, 4.0]), kind)
    expected = {"clipped": [10.0, 1.0, 0.1, 2.0], "self_normalised": [4.0, 0.0, 0.0, 0.0]}
    np.testing.assert_allclose(weights, expected[kind], rtol=1e-6)


def test_example_of_almost_all_mass_is_in_every_batch():
    """Without replacement the authors' floor fills 63 of 64 places; here they hold the next hardest."""
    losses = np.r_[10.0, np.linspace(0.0, 1.0, 999)].astype(np.float32)
    sampler = compiled(hardness(1000, 20.0, replacement=False))
    state = sampler.init(losses)
    keys = jax.random.split(KEY, 100)
    indices = np.asarray(jax.jit(jax.vmap(lambda key: sampler.sample(state, key, 64)[0]))(keys))
    assert (indices == 0).any(1).all()
    assert losses[indices[indices > 0]].mean() > 0.9


def test_scores_are_drawn_in_proportion_and_fall_back_to_the_prior():
    sampler = compiled(proportional(4, prior=[1.0, 1.0, 1.0, 3.0]))
    state = sampler.init(jnp.array([1.0, 2.0, 0.0, 1.0]))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), np.array([1, 2, 0, 3]) / 6, rtol=1e-6)
    state = sampler.update(state, jnp.arange(4), jnp.zeros(4))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), np.array([1, 1, 1, 3]) / 6, rtol=1e-6)
    keys = jax.random.split(KEY, 4000)
    for mode in (True, False):
        drawer = proportional(4, prior=[1.0, 1.0, 1.0, 3.0], replacement=mode)
        first = np.asarray(jax.jit(jax.vmap(lambda key, s=drawer: s.sample(state, key, 2)[0][0]))(keys))
        np.testing.assert_allclose(np.bincount(first, minlength=4) / 4000, np.array([1, 1, 1, 3]) / 6, atol=0.04)


def test_a_vanished_score_comes_back_with_a_floor():
    sampler = compiled(proportional(3, floor=0.3))
    state = sampler.init(jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(np.exp(sampler.log_probs(state)), [0.45, 0.45, 0.1], rtol=1e-6)
    for negative in (-1.0, -1e30):
        assert sampler.update(state, jnp.array([0]), jnp.array([negative])).values[0] < 0
        assert np.isfinite(sampler.log_probs(sampler.update(state, jnp.array([0]), jnp.array([negative])))).all()
