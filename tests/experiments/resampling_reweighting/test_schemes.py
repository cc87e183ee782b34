"""Resampling-reweighting: estimates are unbiased and have the least variance, against float64 and by draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.resampling_reweighting import schemes
from mixjax.grad_norms import norm

KEY = jax.random.key(0)
PRIOR = np.float32([0.1, 0.4, 0.2, 0.3])
GRADS = np.float32([[1, 2], [-30, 0.5], [0, 0], [0.1, -0.2]])


@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_the_estimate_is_unbiased_and_its_variance_is_the_formula(floor):
    q = schemes.probabilities(norm(GRADS), PRIOR, floor)
    masses = PRIOR * np.linalg.norm(GRADS, axis=1)
    np.testing.assert_allclose(q, (1 - floor) * masses / masses.sum() + floor * PRIOR, rtol=1e-6)
    keys = jax.random.split(KEY, 100_000)
    draws = np.float64(jax.jit(jax.vmap(lambda key: schemes.estimate(key, GRADS, PRIOR, q)))(keys))
    expected, error = PRIOR @ GRADS, draws.std(0) / len(draws) ** 0.5
    assert (abs(draws.mean(0) - expected) < 4 * error + 1e-5).all()
    np.testing.assert_allclose(draws.var(0).sum(), schemes.variance(GRADS, PRIOR, q), rtol=0.03)


def test_no_weights_have_less_variance_than_those_by_norms():
    """Eq. 3.45: at most plain SGD's trace, and at most that of any other q."""
    random = np.random.default_rng(0)
    grads = (random.normal(size=(500, 8, 3)) * np.exp(2 * random.normal(size=(500, 8, 1)))).astype(np.float32)
    prior, other = (random.dirichlet(np.ones(8), 500).astype(np.float32) for _ in range(2))
    best = jax.vmap(lambda g, p: schemes.probabilities(norm(g), p))(grads, prior)
    least, plain, mixed = (jax.vmap(schemes.variance)(grads, prior, q) for q in (best, prior, (prior + other) / 2))
    assert (least <= plain * (1 + 1e-4) + 1e-6).all() and (least <= mixed * (1 + 1e-4) + 1e-6).all()
    lengths, mean = np.linalg.norm(grads, axis=-1), (prior[..., None] * grads).sum(1)
    exact = (prior * lengths).sum(-1) ** 2 - (mean**2).sum(-1)
    np.testing.assert_allclose(least, exact, rtol=1e-3, atol=1e-4 * float(np.square(grads).max()) / 100)


def test_all_zero_scores_are_the_prior_and_zeros_are_never_drawn():
    np.testing.assert_allclose(schemes.probabilities(np.zeros(4), PRIOR), PRIOR, rtol=1e-6)
    np.testing.assert_allclose(schemes.probabilities([0, 2e-38, 0, 0], PRIOR), [0, 1, 0, 0], rtol=1e-6)
    assert np.isfinite(schemes.probabilities([1e38, 3e38, 0, 0], PRIOR)).all()
    drawn = jax.vmap(lambda key: schemes.draw(key, jnp.array([0.0, 0.5, 0.0, 0.5, 0.0])))(jax.random.split(KEY, 2000))
    assert set(drawn.tolist()) == {1, 3}
    nothing = schemes.estimate(KEY, np.zeros((4, 2)), PRIOR, schemes.probabilities(np.zeros(4), PRIOR))
    assert nothing.tolist() == [0.0, 0.0]


def test_rejection_draws_by_the_scores_and_tries_as_often_as_they_are_uneven():
    scores = jnp.array([0.0, 1.0, 2.0, 5.0])
    run = jax.jit(jax.vmap(lambda key: schemes.draw_by_rejection(key, lambda i: scores[i], 4, 5.0)))
    indices, tries, accepted = map(np.asarray, run(jax.random.split(KEY, 20_000)))
    counts = np.bincount(indices, minlength=4)
    assert counts[0] == 0 and stats.chisquare(counts[1:], 20_000 * np.array([1, 2, 5]) / 8).pvalue > 1e-4
    np.testing.assert_allclose(tries.mean(), 5 / 2, rtol=0.03)
    assert accepted.all()
    _, tries, accepted = schemes.draw_by_rejection(KEY, lambda i: 0.0, 4, 5.0, max_tries=7)
    assert tries == 7 and not accepted
    with pytest.raises(ValueError, match="n >= 1"):
        schemes.draw_by_rejection(KEY, lambda i: 1.0, 0, 1.0)


def test_the_group_estimate_is_unbiased_over_elements_and_groups():
    groups = np.split(np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32) * 3, [2])
    shares = np.float32([2 / 12, 10 / 12])

    def one(key):
        keys = jax.random.split(key, 3)
        pick = [g[jax.random.randint(k, (), 0, len(g))] for g, k in zip(map(jnp.asarray, groups), keys, strict=False)]
        return schemes.group_estimate(keys[2], jnp.stack(pick), shares)

    draws = np.float64(jax.jit(jax.vmap(one))(jax.random.split(KEY, 100_000)))
    error = draws.std(0) / len(draws) ** 0.5
    assert (abs(draws.mean(0) - np.concatenate(groups).mean(0)) < 4 * error).all()


def test_a_prior_of_sizes_is_normalised_and_terms_without_a_score_are_left_out():
    sizes, grads = np.float32([800, 4000]), np.float32([[1.0], [1.0]])
    q = schemes.probabilities(norm(grads), sizes)
    assert schemes.estimate(KEY, grads, sizes, q).tolist() == [1.0]
    assert schemes.group_estimate(KEY, grads, sizes).tolist() == [1.0]
    assert schemes.variance(grads, sizes, q) < 1e-10
    np.testing.assert_allclose(schemes.probabilities([1, 5, np.nan, 2], np.ones(4)), [1 / 8, 5 / 8, 0, 2 / 8])
    np.testing.assert_allclose(schemes.probabilities([np.inf, -1, 0, 2], np.ones(4)), [0, 0, 0, 1])
    np.testing.assert_allclose(schemes.probabilities([1e30, 1e-12, 3e-12], [0, 1, 1]), [0, 0.25, 0.75], rtol=1e-6)
    assert schemes.variance([[1.0], [3.0]], [0.5, 0.5], [0.0, 1.0]) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schemes.probabilities(np.ones(3), PRIOR), "scores and prior must both be"),
        (lambda: schemes.probabilities(np.ones(2), [0.0, 0.0]), "prior must be finite"),
        (lambda: schemes.probabilities(np.ones(2), [0.5, 0.5], floor=2.0), "floor must be in"),
        (lambda: schemes.estimate(KEY, GRADS, PRIOR[:2], PRIOR[:2]), "need grads"),
        (lambda: schemes.variance(GRADS[:, 0], PRIOR, PRIOR), "need grads"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
