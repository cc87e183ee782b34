"""Tests linear regression: every estimation source, the warm-up, the shared random numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import linear

SMALL = {"dim": 20, "num_examples": 40, "batch_size": 8, "num_steps": 40, "probe_every": 4, "estimation_size": 10}
LINEAR = linear.Linear(**SMALL, learning_rate=5e-4, gradient_size=8)
KEY = jax.random.key(0)


def run(function, config):
    experiment = function(config)
    return experiment, jax.jit(experiment.train)(KEY, {}, experiment.data)


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
