"""Tests what paper 003's experiments share: settings, one step's estimate, and summaries of runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting import feature_norms, molecules, runs, two_slopes, welsch


@pytest.mark.parametrize("method", feature_norms.METHODS)
def test_every_direction_is_unbiased(method):
    sizes, grads = jnp.array([2, 5]), jax.random.normal(jax.random.key(3), (7, 1)).at[:2].multiply(9.0)

    def draw(key):
        return runs.direction(method, key, lambda i: grads[i], sizes, 7, jnp.repeat(jnp.array([9.0, 1.0]), sizes, 0))[0]

    draws = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(4), 20_000)))
    assert abs(draws.mean() - grads.mean()) < 4 * draws.std() / np.sqrt(draws.size)


@pytest.mark.parametrize("kind", [two_slopes.Piecewise, molecules.Molecules, welsch.Welsch, feature_norms.FeatureNorms])
def test_steps_that_do_not_fit_are_refused(kind):
    with pytest.raises(ValueError, match="num_steps must be a multiple of 7"):
        kind(num_steps=100, record_every=7)
