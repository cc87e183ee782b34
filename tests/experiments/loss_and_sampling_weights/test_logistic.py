"""Tests logistic regression: flips, the combined weights of appendix D, the closed-form accuracy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.loss_and_sampling_weights import glm, logistic
from mixjax import samplers

SMALL = {"dim": 20, "num_examples": 40, "batch_size": 8, "num_steps": 40, "probe_every": 4, "estimation_size": 10}
LOGISTIC = logistic.Logistic(**{**SMALL, "num_examples": 0}, learning_rate=5e-3, gradient_size=0)
KEY = jax.random.key(0)


def run(function, config):
    experiment = function(config)
    return experiment, jax.jit(experiment.train)(KEY, {}, experiment.data)


def test_flips_have_the_papers_rate():
    logit = jnp.full(20000, 50.0)  # certain before flipping
    assert logistic.label(KEY, logit, jnp.zeros(20000)).mean() == 1.0
    flipped = 1.0 - float(logistic.label(KEY, logit, jnp.full(20000, 0.2)).mean())
    assert abs(flipped - 0.2) < 4 * np.sqrt(0.16 / 20000)


def test_combined_draws_by_erma_times_va_and_keeps_the_objective():
    config = dataclasses.replace(LOGISTIC, gamma1=0.1, gamma2=5.0)
    _, metrics = run(logistic.single_weight, config)
    weight, sampling = (
        dict(zip(logistic.FIGURE_6, metrics[m], strict=True)) for m in ("loss_weight", "sampling_weight")
    )
    assert (weight["single_mean"] == 0.5).all()
    np.testing.assert_allclose(sampling["single_mean"][0], sampling["erma_va"][0], rtol=1e-4)
    counts = jax.vmap(lambda q: samplers.allocate(jnp.stack([q, 1 - q]), 8))(sampling["single_pooled"])
    np.testing.assert_allclose(weight["single_pooled"], counts[:, 0] / 8)
    assert abs(float(weight["erma"][-1]) - 0.5) > 0.05


def test_cosine_distance_and_accuracy():
    truth = glm.truth(4)
    assert float(logistic.cosine_distance(jnp.zeros(4))) == 1.0
    assert abs(float(logistic.cosine_distance(3 * truth))) < 1e-6
    key_x, key_y = jax.random.split(KEY)
    x = jax.random.normal(key_x, (200_000, 4)) * 10.0
    params = truth + jnp.array([0.3, 0.0, 0.0, -0.3])
    y = logistic.label(key_y, x @ truth, jnp.zeros(200_000))
    measured = float(((x @ params > 0) == (y > 0.5)).mean())
    closed = float(logistic.accuracy(logistic.cosine_distance(params), (100.0, 100.0)))
    assert abs(measured - closed) < 5 * np.sqrt(0.1 / 200_000)
