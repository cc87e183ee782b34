"""Tests the problem with features of norm 1 and K."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.resampling_reweighting import feature_norms


def test_remark_2_2s_problem_has_a_sharp_minimum_that_is_lower():
    config = feature_norms.FeatureNorms(num_examples=60, dim=3)
    points, number = feature_norms.problem(jax.random.key(0), config)
    assert number == 12
    np.testing.assert_allclose(np.linalg.norm(points.x, axis=1), np.where(np.arange(60) < 12, 20.0, 1.0), rtol=1e-5)
    theta = points.sharp + 0.03
    own = jax.jit(jax.grad(feature_norms.loss))(theta, points)
    np.testing.assert_allclose(feature_norms.gradients(theta, points.x, points.y).mean(0), own, rtol=1e-4)
    places, line = jax.jit(feature_norms.along_axis)(points)
    np.testing.assert_allclose(places[jnp.array([0, -1])], [0.05, -0.5], rtol=1e-6)
    np.testing.assert_allclose(line[-1], feature_norms.loss(points.flat, points), rtol=1e-5)
    assert line[0] < line[-1] < line.max() and 0 < jnp.argmax(line) < len(line) - 1
