"""Theorem A.5's two sides against NumPy, and a tiny run from the config to the claim."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import generalisation_bound as gb
from experiments.loss_and_sampling_weights.exact_fits import draw
from mixjax.runner import configs, experiment, results

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "generalisation_bound.toml"
CHANGES = {"dim": 6, "num_examples": 20, "updates": 3, "hold_out_size": 30}
SMALL = gb.GeneralisationBound(**CHANGES)
THETA = np.full(6, 6**-0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run's folder, its claims by name and its metrics."""
    texts = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in CHANGES.items()]
    config = configs.load(CONFIG, [*texts, "sweep.seeds=60", "sweep.chunk=60"])
    path = experiment.run(config, out=tmp_path_factory.mktemp("run") / "out")
    rows = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    return path, {row["name"]: row for row in rows}, results.read(path)["run"]


def data(num):
    return tuple(np.asarray(part, np.float64) for part in draw(jax.random.key(0), SMALL, num))


def test_loss_moments_are_those_of_the_draws():
    x, y = data(20000)
    params = THETA + np.linspace(-0.5, 0.5, 6)
    mean, variance, largest = gb.loss_moments(jnp.asarray(params), SMALL)
    losses = np.square(x @ params - y)
    np.testing.assert_allclose(mean, losses.mean(axis=1), rtol=0.03)
    np.testing.assert_allclose(variance, losses.var(axis=1), rtol=0.03)
    assert np.all(losses.max(axis=1) <= largest)


def test_bound_is_theorem_a5():
    """One iterate; after one update from w = 1, G = 0 and ERMA's w is ``exp(-gamma2 pi Var)``."""
    theta = THETA + 0.1
    found = gb.bound(jax.random.key(0), SMALL, jnp.asarray(theta)[None])
    x, y = data(30)
    values = np.square(x @ theta - y)
    losses, variances, largest = (np.asarray(part, np.float64) for part in gb.loss_moments(jnp.asarray(theta), SMALL))
    log_term = np.log(2 / SMALL.delta)
    erma = np.exp(-np.minimum(SMALL.gamma2 * 0.5 * values.var(axis=1, ddof=1), 5.0))
    for row, w in enumerate((np.ones(2), erma)):
        gap = np.square(0.5 * losses.sum() - 0.5 * np.sum(w * values.mean(axis=1)))
        bound = 2 * np.square(0.5 * np.sum((1 - w) * losses)) + 32 * log_term * np.sum(w**2 / 4 * variances / 30)
        np.testing.assert_allclose(found["squared_gap"][row, 0], gap, rtol=1e-3)
        np.testing.assert_allclose(found["bound"][row, 0], bound, rtol=1e-3)
    clean, noisy = np.square(largest)
    needed = [noisy / variances[1], noisy / variances[0], max(clean / variances[0], noisy / variances[1])]
    np.testing.assert_allclose(found["needed_size"], np.array(needed) * log_term / 18, rtol=1e-4)


@pytest.mark.slow
def test_a_tiny_bound_run_ends_in_the_claim(run):
    """The whole chain."""
    path, rows, _ = run
    assert set(rows) == {"bound_holds"}
    assert rows["bound_holds"]["holds"], rows["bound_holds"]
    assert (path / "figure.png").stat().st_size > 10_000
