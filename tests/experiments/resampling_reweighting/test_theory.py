"""Tests the estimates and runs of section 3 of paper 003; tests/laws/theory holds its theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting import quadratics, theory


@pytest.fixture
def terms():
    return quadratics.problem(jax.random.key(0), 10)


@pytest.mark.parametrize("method", quadratics.METHODS)
def test_estimates_are_unbiased_with_the_variance_told(terms, method):
    grads = terms.gradients(terms.best + 0.7)
    draw = jax.jit(jax.vmap(lambda key: quadratics.estimate(method, key, grads)))
    draws = np.asarray(draw(jax.random.split(jax.random.key(1), 20_000)))
    assert abs(draws.mean() - grads.mean()) < 4 * draws.std() / np.sqrt(len(draws))
    np.testing.assert_allclose(draws.var(0).sum(), quadratics.trace(method, grads), rtol=0.1)
    assert quadratics.bias(method, grads) < 1e-6
    np.testing.assert_allclose(quadratics.probabilities(method, grads).sum(), 1.0, rtol=1e-6)


def test_the_best_parameter_has_a_mean_gradient_of_zero(terms):
    np.testing.assert_allclose(terms.gradients(terms.best).mean(), 0.0, atol=1e-6)


def test_a_tenth_of_the_features_is_large():
    x = theory.interpolating(jax.random.key(2), 5)
    sizes = jnp.linalg.norm(x, axis=1)
    assert x.shape == (200, 5) and sizes[:20].mean() > 4 * sizes[20:].mean()


@pytest.mark.parametrize("method", quadratics.METHODS)
def test_a_run_beside_gradient_descent_comes_nearer_with_smaller_steps(terms, method):
    keys = jax.random.split(jax.random.key(3), 50)
    distances = [
        jax.vmap(lambda key, rate=rate: theory.beside_flow(method, key, terms, rate, 2.0)[0])(keys).mean()
        for rate in (0.04, 0.01)
    ]
    assert distances[1] < 0.5 * distances[0]
