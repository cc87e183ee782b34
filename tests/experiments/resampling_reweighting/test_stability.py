"""Tests the largest stable steps of SGD and RR; tests/laws/theory tests them against draws."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting.stability import eigenvalue_limit, step_limit

FEATURES = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
ERROR = np.array([0.5, -1.0, 2.0], np.float32)


@pytest.mark.parametrize("resample", [False, True])
def test_the_mean_square_neither_grows_nor_falls_at_the_limit(resample):
    limit = float(step_limit(jnp.asarray(FEATURES), jnp.asarray(ERROR), resample))
    grads = FEATURES * (FEATURES @ ERROR)[:, None]
    norms = np.linalg.norm(grads, axis=1)
    shares = norms / norms.sum() if resample else np.full(30, 1 / 30)
    steps = grads / (30 * shares)[:, None]
    after = shares @ np.square(ERROR - limit * steps).sum(1)
    np.testing.assert_allclose(after, np.square(ERROR).sum(), rtol=1e-4)


def test_an_error_that_no_feature_sees_has_no_limit():
    assert np.isnan(step_limit(jnp.eye(3)[:2], jnp.eye(3)[2], True))


def test_in_one_dimension_the_eigenvalue_is_the_limit():
    x = jnp.asarray(FEATURES[:, :1])
    np.testing.assert_allclose(eigenvalue_limit(x, jnp.ones(1)), step_limit(x, jnp.ones(1), True), rtol=1e-5)
