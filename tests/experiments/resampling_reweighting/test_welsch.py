"""Tests the problems of robust statistics: their gradients, data and runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting import (
    welsch,
)


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_welsch_gradients_and_data(problem):
    config = welsch.Welsch(problem=problem, sizes=(30, 50))
    points = getattr(welsch, problem)(jax.random.key(0), config)
    theta = points.best + 0.05
    expected = jax.vmap(lambda x, y: jax.grad(lambda t: -jnp.expm1(-((y - x @ t) ** 2) / 2))(theta))(points.x, points.y)
    np.testing.assert_allclose(welsch.gradients(theta, points.x, points.y), expected, rtol=1e-4, atol=1e-6)
    assert (welsch.gradients(theta + 1e4, points.x, points.y)[:30] == 0).all()  # underflow, not NaN
    assert abs(points.x[:30].mean() - 20) < 1 and abs(points.x[30:].mean()) < 1


def test_resampling_stays_where_sgd_leaves():
    config = welsch.Welsch(num_steps=1200, record_every=100, margin=0.08)
    found = jax.jit(jax.vmap(functools.partial(welsch.train, config=config)))(jax.random.split(jax.random.key(2), 12))
    last = np.asarray(found["loss"])[:, :, -1]
    assert (last[:, 0] > 0.25).mean() > 0.5 and (last[:, 1:] < 0.25).mean() > 0.95
