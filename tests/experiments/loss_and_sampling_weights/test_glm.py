"""Tests the generalised linear models' data and signals against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import glm, linear, logistic
from mixjax import signals

SMALL = {"dim": 20, "num_examples": 40, "batch_size": 8, "num_steps": 40, "probe_every": 4, "estimation_size": 10}
LINEAR = linear.Linear(**SMALL, learning_rate=5e-4, gradient_size=8)
LOGISTIC = logistic.Logistic(**{**SMALL, "num_examples": 0}, learning_rate=5e-3, gradient_size=0)
KEY = jax.random.key(0)


@pytest.mark.parametrize("loss", [linear.squared_error, logistic.cross_entropy])
def test_closed_form_gradient_spread_is_the_per_example_one(loss):
    ids = jnp.repeat(jnp.arange(2), jnp.array([5, 7]), total_repeat_length=12)
    batch = glm.generate(KEY, LOGISTIC, logistic.label, ids)
    params = jax.random.normal(jax.random.key(1), (20,))

    def one(params, example):
        x, scale, target = example
        return loss(scale * (x @ params), target)

    found = glm.measure(loss, params, batch, ids)
    expected = signals.grad_stds(one, params, tuple(batch), ids, 2)
    np.testing.assert_allclose(found["grad_stds"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["counts"], [5, 7])


def test_data_have_the_papers_moments():
    config = dataclasses.replace(LINEAR, num_examples=4000)
    data = glm.data_set(KEY, config, linear.label)
    noise = np.asarray(data.target - data.x @ glm.truth(20))
    for d, (scale, variance) in enumerate(zip(config.scales, config.noise, strict=True)):
        rows = slice(4000 * d, 4000 * (d + 1))
        assert abs(np.asarray(data.x)[rows].var() / scale - 1) < 4 * np.sqrt(2 / 80000)
        assert abs(noise[rows].var() / variance - 1) < 5 * np.sqrt(2 / 4000)
