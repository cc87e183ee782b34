"""Section 4's experiment: its helpers against NumPy, and a tiny run from the config to the claims."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import glm, linear
from experiments import gradient_variance as gv
from experiments.sentences import SENTENCES
from mixjax import configs, experiment, signals

CONFIG = Path(__file__).parents[2] / "configs" / "loss_and_sampling_weights" / "gradient_variance.toml"
ALLOCATION = gv.Allocation(dim=4, num_examples=10, batch_size=8, num_batches=5, num_counts=3)
REDUNDANCY = gv.Redundancy(
    distinct=(2, 12), num_examples=12, batch_size=6, num_steps=8, probe_every=4, gradient_size=6, jitter=0.1
)
KEY = jax.random.key(0)


def test_sgd_without_noise_contracts_as_it_should():
    config = gv.Quadratic(variances=(1e-20,), dim=3, num_steps=12, num_records=4)
    found = gv.sgd_errors(KEY, config)
    eigenvalues, steps = np.geomspace(0.1, 1.0, 3), np.arange(1, 13)
    constant = (1 - 0.2 * eigenvalues) ** steps[:, None]
    decaying = np.cumprod(1 - eigenvalues / (0.1 * np.arange(12)[:, None] + 1.0), axis=0)
    for row, params in zip(found[:, 0], (constant, decaying), strict=True):
        errors = 0.5 * np.sum(eigenvalues * np.square(params) / 3, axis=1)
        np.testing.assert_allclose(row, errors.reshape(4, 3).mean(axis=1), rtol=1e-4)


def test_sgd_at_a_constant_step_settles_at_the_stationary_error():
    """``E θ_j² = η² s² / (1 - (1 - η λ)²)``, ``s² = σ² / d``."""
    config = gv.Quadratic(variances=(1.0, 4.0), dim=50, curvature=(1.0, 2.0), num_steps=2000, num_records=2)
    found = gv.sgd_errors(KEY, config)[0, :, 1]
    eigenvalues, rate = np.geomspace(1.0, 2.0, 50), 0.1
    level = 0.5 * np.sum(eigenvalues * rate**2 / 50 / (1 - (1 - rate * eigenvalues) ** 2))
    np.testing.assert_allclose(found, [level, 4 * level], rtol=0.05)


def test_predicted_variance_is_eq_14_of_the_population():
    found = jax.jit(gv.allocation_variances, static_argnums=1)(KEY, ALLOCATION)
    data = glm.data_set(jax.random.split(KEY)[0], gv.problem(ALLOCATION, ALLOCATION.scales), linear.label)
    x, y = np.asarray(data.x, np.float64), np.asarray(data.target, np.float64)
    theta = np.full(4, 0.5) + 0.5 * np.array([1, -1, 1, -1])
    grads = (2 * (x @ theta - y)[:, None] * x).reshape(2, 10, 4)
    v = np.sqrt(np.square(grads - grads.mean(axis=1, keepdims=True)).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(found["grad_stds"], v, rtol=1e-4)
    counts = np.stack([found["counts"], 8 - found["counts"]], axis=1)
    c = np.array(ALLOCATION.prior)
    np.testing.assert_allclose(found["predicted"], np.sum((c * v) ** 2 / counts, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["va_share"], c[0] * v[0] / np.sum(c * v), rtol=1e-4)
    assert found["counts"].tolist()[1:] == [4, 6, 1, 4, 7]  # uniform, proportional, grid


def test_measured_variance_converges_to_the_predicted_one():
    many = dataclasses.replace(ALLOCATION, num_batches=20000)
    found = jax.jit(gv.allocation_variances, static_argnums=1)(KEY, many)
    np.testing.assert_allclose(found["measured"], found["predicted"], rtol=0.05)


@pytest.mark.parametrize("stds", [[1.0, 3.0], [5.0, 0.1], [2.0, 2.0]])
def test_va_counts_are_the_best_integers(stds):
    prior, stds = np.array(ALLOCATION.prior), np.array(stds)
    found = gv.named_counts(ALLOCATION, jnp.asarray(stds))["va"]
    every = np.stack([np.arange(1, 8), 7 - np.arange(7)], axis=1)
    best = every[np.argmin(np.sum((prior * stds) ** 2 / every, axis=1))]
    np.testing.assert_array_equal(found, best)


def test_spread_grows_with_the_scale_as_the_closed_form_says():
    config = gv.GradientVariance(allocation=gv.Allocation(num_examples=20000), scales=(1.0, 9.0))
    found = gv.scale_stds(KEY, config)
    np.testing.assert_allclose(found, gv.expected_std(config.allocation, np.array([1.0, 9.0]), 1.0), rtol=0.03)


def test_redundancy_starts_from_the_per_example_spread():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((30, 5)), jnp.float32)
    labels = jnp.asarray(np.arange(30) % 10, jnp.int32)
    found = jax.jit(gv.redundancy, static_argnums=1)(KEY, REDUNDANCY, (images, labels))
    assert found["grad_std"].shape == (2, 2, 2) and found["sampling_share"].shape == (2, 2)

    shuffle_key, jitter_key, _ = jax.random.split(KEY, 3)
    order = np.asarray(jax.random.permutation(shuffle_key, 30))
    noise = 0.1 * jax.random.normal(jitter_key, (24, 5))

    def loss(params, example):
        return gv.cross_entropies(params, (example[0][None], example[1][None]))[0]

    spread = jax.jit(lambda x, y: signals.grad_stds(loss, jnp.zeros((6, 10)), (x, y), jnp.repeat(jnp.arange(2), 12), 2))
    for row, distinct in enumerate(REDUNDANCY.distinct):
        chosen = order[np.concatenate([np.arange(12), 12 + np.arange(12) % distinct])]
        assert len(set(chosen[12:])) == distinct and not set(chosen[:12]) & set(chosen[12:])
        expected = spread(images[chosen] + noise, labels[chosen])
        np.testing.assert_allclose(found["first_std"][row], expected, rtol=1e-4)


def test_gap_is_eq_12s():
    config = gv.GradientVariance().gap
    config = dataclasses.replace(config, dim=5, num_steps=40, learning_rate=0.02, estimation_size=20)
    found = jax.tree.map(np.asarray, jax.jit(gv.gaps, static_argnums=(1, 2))(KEY, config, 30))
    start = config.warmup_rounds
    assert start == 4
    np.testing.assert_array_equal(found["gap"][:, : start + 1], 0.0)  # w = 1 until the first update
    w = np.stack([found["gap_weight"], 1 - found["gap_weight"]], axis=1) / 0.5
    expected = np.sum(0.5 * (1 - w[:, :, :-1]) * found["gap_losses"][:, :, 1:], axis=1)
    np.testing.assert_allclose(found["gap"][:, 1:], expected, atol=1e-6)
    assert np.abs(found["gap"][:, start + 1 :]).min() > 0


def test_gap_needs_a_hold_out_that_stays():
    for change in ({"num_examples": 50}, {"estimation": "fresh"}):
        with pytest.raises(ValueError, match="hold-out"):
            gv.GradientVariance(gap=dataclasses.replace(gv.GradientVariance().gap, **change))


def test_log_slope_of_a_power_law():
    x = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(gv.log_slope(x, np.tile(3 * x**-0.7, (5, 1))), -0.7)
    rng = np.random.default_rng(0)
    noisy = x**2 * rng.uniform(0.5, 1.5, size=(400, 3))
    values = gv.log_slope(x, noisy)
    resampled = [np.polyfit(np.log(x), np.log(noisy[i].mean(axis=0)), 1)[0] for i in rng.integers(0, 400, (2000, 400))]
    np.testing.assert_allclose(values.mean(), np.polyfit(np.log(x), np.log(noisy.mean(axis=0)), 1)[0])
    np.testing.assert_allclose(values.std(ddof=1) / 20, np.std(resampled), rtol=0.1)


def test_costs_are_counted():
    cost = gv.signal_costs(num=10, pixels=20, units=5, classes=3)
    assert 0 < cost["moments"] < cost["forward"] < cost["step"]
    np.testing.assert_allclose(cost["forward"], 2 * 10 * (20 * 5 + 5 * 3), rtol=0.3)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    """The whole chain; what 20 draws of a tiny problem can decide is decided rightly."""
    changes = {
        "scales": [1.0, 10.0],
        "gap_size": 20,
        "quadratic": {"variances": [0.1, 10.0], "dim": 4, "num_steps": 200, "num_records": 10},
        "allocation": {"dim": 4, "num_examples": 20, "batch_size": 12, "num_batches": 10, "num_counts": 3},
        "redundancy": {"distinct": [3, 60], "num_examples": 60, "num_steps": 40, "probe_every": 10},
        "gap": {"dim": 10, "num_steps": 40, "estimation_size": 20, "learning_rate": 0.01},
        "sweep": {"seeds": 20, "batch_size": 20},
    }
    texts = []
    for name, value in changes.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        texts += [f"{name}.{key}={item}".replace(".=", "=") for key, item in inner]
    path = experiment.run(configs.load(CONFIG, texts), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert all(row["statement"].startswith("ours") for name, row in rows.items() if name not in SENTENCES)
    named = {"variance_sets_rate", "va_minimises_variance", "scale_raises_variance", "signals_are_cheap"}
    named |= {"redundancy_lowers_variance", "redundancy_lowers_va_share", "gap_positive", "gap_negative"}
    assert named | {"gap_sign_over_training"} <= set(rows)
    for name in ("scale_raises_variance", "redundancy_lowers_va_share", "signals_are_cheap", "gap_positive"):
        assert rows[name]["holds"], rows[name]
    assert (path / "figure.png").stat().st_size > 10_000
