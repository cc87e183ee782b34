import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import glm, linear, logistic
from mixjax import samplers, signals

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = {"dim": 20, "num_examples": 40, "batch_size": 8, "num_steps": 40, "probe_every": 4, "estimation_size": 10}
LINEAR = linear.Linear(**SMALL, learning_rate=5e-4, gradient_size=8)
LOGISTIC = logistic.Logistic(**{**SMALL, "num_examples": 0}, learning_rate=5e-3, gradient_size=0)
KEY = jax.random.key(0)


def run(function, config):
    experiment = function(config)
    return experiment, jax.jit(experiment.train)(KEY, {}, experiment.data)


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


def test_flips_have_the_papers_rate():
    logit = jnp.full(20000, 50.0)  # certain before flipping
    assert logistic.label(KEY, logit, jnp.zeros(20000)).mean() == 1.0
    flipped = 1.0 - float(logistic.label(KEY, logit, jnp.full(20000, 0.2)).mean())
    assert abs(flipped - 0.2) < 4 * np.sqrt(0.16 / 20000)


@pytest.mark.parametrize("estimation", ["train", "hold_out_draws", "whole_hold_out", "fresh"])
def test_every_estimation_source_trains(estimation):
    config = dataclasses.replace(LINEAR, estimation=estimation)
    _, metrics = run(linear.linear, config)
    assert metrics["error"].shape == (6, 10)
    assert np.isfinite(metrics["error"]).all() and (metrics["error"][:, -1] < 1.0).all()


def test_warm_up_delays_fgls_and_not_va():
    _, metrics = run(linear.linear, LINEAR)
    weight, sampling = (dict(zip(linear.METHODS, metrics[m], strict=True)) for m in ("loss_weight", "sampling_weight"))
    np.testing.assert_array_equal(weight["vanilla"], np.full(10, 0.5))
    np.testing.assert_allclose(weight["aitken"], np.full(10, 20 / 21), rtol=1e-6)
    assert (weight["fgls"][:2] == 0.5).all() and (weight["fgls"][2:] != 0.5).all()
    assert sampling["va"][0] != 0.5 and (sampling["aitken"] == 0.5).all()


def test_methods_see_the_same_random_numbers():
    """Where weights are equal, so are parameters: FGLS during its warm-up is vanilla."""
    _, metrics = run(linear.linear, LINEAR)
    error = dict(zip(linear.METHODS, metrics["error"], strict=True))
    np.testing.assert_allclose(error["fgls"][:2], error["vanilla"][:2], rtol=1e-5)
    np.testing.assert_allclose(error["fgls_va"][:2], error["va"][:2], rtol=1e-5)


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
