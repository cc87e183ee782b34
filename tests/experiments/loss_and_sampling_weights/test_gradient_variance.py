"""Eq. 14's experiment: its helpers against NumPy, and a tiny run from the config to the claims."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import gradient_variance as gv
from mixjax.runner import configs, experiment

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "gradient_variance.toml"
TINY = gv.GradientVariance(dim=4, num_examples=10, batch_size=8, num_batches=5000, num_counts=3)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def found():
    return jax.tree.map(np.asarray, jax.jit(gv.allocation_variances, static_argnums=1)(KEY, TINY))


def test_predicted_variance_is_eq_14_of_the_population(found):
    data, _ = gv.data_set(jax.random.split(KEY)[0], TINY, TINY.scales)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.target, np.float64)
    theta = np.full(4, 0.5) + 0.5 * np.array([1, -1, 1, -1])
    grads = (2 * (x @ theta - y)[:, None] * x).reshape(2, 10, 4)
    v = np.sqrt(np.square(grads - grads.mean(axis=1, keepdims=True)).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(found["grad_stds"], v, rtol=1e-4)
    counts = np.stack([found["counts"], 8 - found["counts"]], axis=1)
    np.testing.assert_allclose(found["predicted"], np.sum((TINY.prior * v) ** 2 / counts, axis=1), rtol=1e-4)
    assert found["counts"].tolist()[1:] == [4, 6, 1, 4, 7]  # uniform, proportional, grid


def test_measured_variance_converges_to_the_predicted_one(found):
    np.testing.assert_allclose(found["measured"], found["predicted"], rtol=0.05)


@pytest.mark.parametrize("stds", [[1.0, 3.0], [5.0, 0.1], [2.0, 2.0]])
def test_va_counts_are_the_best_integers(stds):
    every = np.stack([np.arange(1, 8), 7 - np.arange(7)], axis=1)
    best = every[np.argmin(np.sum(np.square(np.multiply(TINY.prior, stds)) / every, axis=1))]
    np.testing.assert_array_equal(gv.all_counts(TINY, jnp.asarray(stds))[0], best)


def test_spread_grows_with_the_scale_as_the_closed_form_says():
    config = dataclasses.replace(TINY, dim=20, num_examples=20000, first_scales=(1.0, 9.0))
    np.testing.assert_allclose(gv.scale_stds(KEY, config), gv.expected_std(config, np.array([1.0, 9.0])), rtol=0.03)


def test_costs_are_counted():
    cost = gv.signal_costs(num=10, pixels=20, units=5, classes=3)
    assert 0 < cost["moments"] < cost["forward"] < cost["step"]
    np.testing.assert_allclose(cost["forward"], 2 * 10 * (20 * 5 + 5 * 3), rtol=0.3)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    changes = [
        "dim=4",
        "num_examples=20",
        "batch_size=12",
        "num_batches=10",
        "num_counts=3",
        "first_scales=[1.0, 10.0]",
    ]
    changes += ["sweep.seeds=20", "sweep.chunk=20"]
    path = experiment.run(configs.load(CONFIG, changes), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert set(rows) == {
        "va_minimises_variance",
        "variance_is_eq_14",
        "scale_raises_variance",
        "signals_are_cheap",
    }
    assert rows["scale_raises_variance"]["holds"] and rows["signals_are_cheap"]["holds"]
    assert (path / "figure.png").stat().st_size > 10_000
