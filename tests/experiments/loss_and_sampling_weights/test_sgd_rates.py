"""Table 1's experiment: SGD against closed forms, slopes against NumPy, and a tiny run."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import sgd_rates
from experiments.loss_and_sampling_weights.sgd_rates import SGDRates
from mixjax.runner import configs, experiment

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "sgd_rates.toml"
KEY = jax.random.key(0)


def test_sgd_without_noise_contracts_as_it_should():
    found = sgd_rates.errors(KEY, SGDRates(variances=(1e-20,), dim=3, num_steps=12, num_records=4))
    eigenvalues, steps = np.geomspace(0.1, 1.0, 3), np.arange(1, 13)
    constant = (1 - 0.2 * eigenvalues) ** steps[:, None]
    decaying = np.cumprod(1 - eigenvalues / (0.1 * np.arange(12)[:, None] + 1.0), axis=0)
    for row, params in zip(found[:, 0], (constant, decaying), strict=True):
        errors = 0.5 * np.sum(eigenvalues * np.square(params) / 3, axis=1)
        np.testing.assert_allclose(row, errors.reshape(4, 3).mean(axis=1), rtol=1e-4)


def test_sgd_at_a_constant_step_settles_at_the_stationary_error():
    """``E θ_j² = η² s² / (1 - (1 - η λ)²)``, ``s² = σ² / d``."""
    config = SGDRates(variances=(1.0, 4.0), dim=50, curvature=(1.0, 2.0), num_steps=1000, num_records=2)
    found = sgd_rates.errors(KEY, config)[0, :, 1]
    eigenvalues, rate = np.geomspace(1.0, 2.0, 50), 0.1
    level = 0.5 * np.sum(eigenvalues * rate**2 / 50 / (1 - (1 - rate * eigenvalues) ** 2))
    np.testing.assert_allclose(found, [level, 4 * level], rtol=0.05)


def test_log_slope_of_a_power_law():
    x = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(sgd_rates.log_slope(x, np.tile(3 * x**-0.7, (5, 1))), -0.7)
    rng = np.random.default_rng(0)
    noisy = x**2 * rng.uniform(0.5, 1.5, size=(400, 3))
    values = sgd_rates.log_slope(x, noisy)
    resampled = [np.polyfit(np.log(x), np.log(noisy[i].mean(axis=0)), 1)[0] for i in rng.integers(0, 400, (2000, 400))]
    np.testing.assert_allclose(values.mean(), np.polyfit(np.log(x), np.log(noisy.mean(axis=0)), 1)[0])
    np.testing.assert_allclose(values.std(ddof=1) / 20, np.std(resampled), rtol=0.1)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    changes = ["variances=[0.1, 10.0]", "dim=4", "num_steps=400", "num_records=10", "sweep.chunk=200"]
    path = experiment.run(configs.load(CONFIG, changes), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert set(rows) == {
        "variance_sets_rate",
        "variance_sets_rate_decaying",
        "rate_decaying_time",
        "rate_constant_time",
    }
    assert rows["variance_sets_rate"]["value"] == pytest.approx(1.0, abs=0.1)
    assert rows["rate_decaying_time"]["value"] < -0.5 < rows["rate_constant_time"]["value"]
    assert (path / "figure.png").stat().st_size > 10_000
