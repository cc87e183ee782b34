"""Tests the closed forms of the divergences, by way of the robust losses, against paper 004 in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import robust_loss, robust_weights
from tests.laws.reference import paper004
from tests.rules.divergence_reference import DIVERGENCES, reference

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_padding_may_hold_anything(divergence):
    rng = np.random.default_rng(0)
    losses, prior = rng.uniform(size=5).astype(np.float32), rng.dirichlet(np.ones(5)).astype(np.float32)
    for beta in (0.0, 2.0, np.inf):
        short, value = robust_weights(losses, prior, beta, divergence), robust_loss(losses, prior, beta, divergence)
        for pad in (-np.inf, np.inf, np.nan, 9.0):
            longer = np.append(losses, np.float32([pad, pad])), np.append(prior, np.float32([0, 0]))
            np.testing.assert_allclose(robust_weights(*longer, beta, divergence), [*short, 0, 0], rtol=1e-6)
            np.testing.assert_allclose(robust_loss(*longer, beta, divergence), value, rtol=1e-6)
            grad = jax.grad(robust_loss)(jnp.asarray(longer[0]), longer[1], beta, divergence)
            np.testing.assert_allclose(grad, [*short, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("beta", [0.1, 3.0, 1000.0])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_hundred_thousand_examples(divergence, beta, uniform):
    rng, n = np.random.default_rng(0), 100_000
    losses = rng.exponential(size=n).astype(np.float32)
    prior = np.full(n, 1 / n) if uniform else rng.dirichlet(np.full(n, 2.0))
    weights = robust_weights(losses, prior, beta, divergence)
    if divergence == "chi2":
        expected = paper004.eq34_by_sorting(losses, prior, beta)
        np.testing.assert_allclose(expected, paper004.eq34(losses, prior, beta), atol=1e-12)
    else:
        expected = reference(divergence, losses, prior, beta)
    assert 0.5 * np.abs(weights - expected).sum() < 5e-6


def test_kl_and_chi2_do_not_sort():
    for divergence, sorts in (("kl", False), ("chi2", False), ("cvar", True)):
        program = jax.make_jaxpr(lambda x, d=divergence: robust_weights(x, jnp.ones(8), 1.0, d))(jnp.arange(8.0))
        assert ("sort" in str(program)) == sorts


def test_newton_is_exact_where_the_support_shrinks_one_by_one():
    losses, prior = -(2.0 ** np.arange(24)), np.full(24, 1 / 24)
    with jax.enable_x64(True):
        for beta in (1e-6, 1e-3, 0.1, 1.0, 10.0):
            weights = robust_weights(losses, prior, beta, "chi2")
            np.testing.assert_allclose(weights, paper004.eq34_by_sorting(losses, prior, beta), atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_robust_loss_is_eq_3_at_its_maximiser(divergence):
    rng = np.random.default_rng(1)
    losses, prior = rng.exponential(size=9), rng.dirichlet(np.ones(9))
    with jax.enable_x64(True):
        for beta in (1e-4, 0.3, 2.0, 50.0):
            p = reference(divergence, losses, prior, beta, 0.7)
            value = p @ losses if divergence == "cvar" else paper004.eq3(p, losses, prior, beta, divergence, 0.7)
            np.testing.assert_allclose(robust_loss(losses, prior, beta, divergence, scale=0.7), value, rtol=1e-10)
        np.testing.assert_allclose(robust_loss(losses, prior, 0.0, divergence), prior @ losses, rtol=1e-12)
        np.testing.assert_allclose(robust_loss(losses, prior, np.inf, divergence), losses.max(), rtol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_small_beta_keeps_its_digits_in_float32(divergence):
    losses, prior = np.float32([0.2, 1.0, 1.7, 0.4]), np.full(4, 0.25)
    for beta in (1e-6, 1e-3):
        value = float(robust_loss(losses, prior, beta, divergence))
        p = reference(divergence, losses, prior, beta)
        exact = p @ losses if divergence == "cvar" else paper004.eq3(p, losses, prior, beta, divergence)
        assert abs(value - exact) < 5e-7


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("largest", [1e8, 1e30, 3e38])
def test_a_loss_that_is_far_larger_than_the_others(divergence, largest):
    """The others still differ, though their gaps to the largest loss are one number in float32."""
    losses = np.float32([1.0, largest, 0.5, 2.0, 0.25])
    prior = np.float32([0.3, 0.1, 0.2, 0.15, 0.25])
    for beta in (1e-4, 1.0, 30.0):
        with np.errstate(over="ignore", under="ignore"):
            expected = reference(divergence, losses, prior / np.float64(prior).sum(), beta)
        np.testing.assert_allclose(robust_weights(losses, prior, beta, divergence), expected, atol=2e-6)


def test_pearson_at_small_beta_is_the_mean_plus_a_variance():
    """``R = mean + (beta / 4) Var`` as long as nothing is cut; with phi = (z - 1)² / 2 it would be beta / 2."""
    losses, prior = np.float32([0.2, 1.0, 1.7, 0.4]), np.full(4, 0.25)
    for scale, factor in ((1.0, 4.0), (0.5, 2.0)):
        value = robust_loss(losses, prior, 0.5, "chi2", scale=scale)
        np.testing.assert_allclose(value, losses.mean() + 0.5 / factor * losses.var(), rtol=1e-6)


def assert_near(weights, expected, tolerance):
    """Half of the absolute differences is the mass that stands in the wrong place."""
    assert 0.5 * np.abs(np.asarray(weights, np.float64) - expected).sum() < tolerance


@pytest.mark.parametrize("hardest", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e2, 1e4, 1e6, np.inf])
def test_pearson_with_a_small_prior_on_the_hardest(hardest, beta):
    rng = np.random.default_rng(0)
    for size in (4, 40):
        prior = rng.dirichlet(np.full(size, 5.0)).astype(np.float32)
        prior[0] = hardest
        losses = rng.uniform(0.0, 3.0, size).astype(np.float32)
        losses[0] = 4.0
        prior = np.float64(prior) / np.float64(prior).sum()
        if np.isinf(beta):
            expected = (np.arange(size) == 0).astype(float)
        else:
            expected = paper004.eq34_by_sorting(losses, prior, beta)
        assert_near(robust_weights(losses, prior, beta, "chi2"), expected, 2e-6)


@pytest.mark.parametrize("beta", [0.3, 30.0, 3e3, 1e12])
def test_pearson_with_ties_and_one_hardest_among_a_million(beta):
    n = 999_983
    for losses in (np.eye(1, n)[0], np.random.default_rng(1).integers(0, 5, n).astype(float)):
        losses = losses.astype(np.float32)
        # Equal losses have equal weights, so the exact answer is that of their classes.
        values, sizes = np.unique(losses, return_counts=True)
        of_class = paper004.eq34_by_sorting(values, sizes / n, beta)
        got = np.asarray(robust_weights(losses, np.ones(n, np.float32), beta, "chi2"), np.float64)
        by_class = np.bincount(np.searchsorted(values, losses), got)
        assert_near(by_class, of_class, 2e-5)


def test_pearson_over_many_random_problems():
    rng = np.random.default_rng(2)
    solve = jax.jit(jax.vmap(lambda losses, prior, beta: robust_weights(losses, prior, beta, "chi2")))
    size, runs = 12, 300
    losses = rng.choice([0.0, 0.5, 1.0, 1.0 + 2**-20, 7.0], (runs, size)).astype(np.float32)
    prior = (10.0 ** rng.uniform(-8, 0, (runs, size))).astype(np.float32)
    beta = (10.0 ** rng.uniform(-3, 6, runs)).astype(np.float32)
    for got, *problem in zip(solve(losses, prior, beta), losses, prior, beta, strict=True):
        v, pi, rate = (np.float64(x) for x in problem)
        assert_near(got, paper004.eq34_by_sorting(v, pi / pi.sum(), rate), 3e-6)
