"""Section 3.1's comparison: the expected error against NumPy, and a tiny run from the config to the claims."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import least_squares as ls
from experiments.loss_and_sampling_weights.exact_fits import draw, hold_out, summarise
from experiments.loss_and_sampling_weights.sentences import SENTENCES
from mixjax.runner import configs, experiment, results

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "least_squares.toml"
CHANGES = {"dim": 6, "sizes": (20,), "shown_size": 20, "num_shares": 5, "updates": 3}
SMALL = ls.LeastSquares(**CHANGES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run's folder, its claims by name and its metrics."""
    texts = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in CHANGES.items()]
    config = configs.load(CONFIG, [*texts, "sweep.seeds=60", "sweep.chunk=60"])
    path = experiment.run(config, out=tmp_path_factory.mktemp("run") / "out")
    rows = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    return path, {row["name"]: row for row in rows}, results.read(path)["run"]


def test_expected_error_is_the_trace_of_the_variance():
    x, y = (np.asarray(part, np.float64) for part in draw(jax.random.key(0), SMALL, 20))
    c, num = np.array([0.8, 0.2]), x.shape[1]
    rows, w, variances = x.reshape(-1, 6), np.repeat(c, num), np.repeat(SMALL.noise, num)
    a = np.linalg.inv(rows.T @ (w[:, None] * rows)) @ (rows * w[:, None]).T
    gram = summarise(jnp.asarray(x), jnp.asarray(y)).gram
    found = ls.expected_error(jnp.asarray(c), gram, jnp.asarray(SMALL.noise), num)
    np.testing.assert_allclose(found, np.trace(a * variances @ a.T), rtol=1e-4)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shown_size"):
        ls.LeastSquares(shown_size=7)


@pytest.mark.slow
def test_a_tiny_least_squares_run_ends_in_claims(run):
    """The whole chain; what 60 draws of a tiny problem can decide is decided rightly."""
    path, rows, _ = run
    assert all(row["statement"].startswith("ours") for name, row in rows.items() if name not in SENTENCES)
    assert set(rows) == {
        "gls_beats_ols",
        "gls_is_best",
        "noisier_domains_reduced",
        "one_shot_fgls_ratio",
        "one_shot_fgls_ratio_whole",
    }
    assert rows["gls_beats_ols"]["holds"], rows["gls_beats_ols"]
    assert rows["gls_is_best"]["holds"], rows["gls_is_best"]
    assert (path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_methods_fit_the_training_part(run):
    """Seed 1000's fits by NumPy, given the loss weights."""
    found = run[2].sel(seed=1000, n=20)
    np.testing.assert_allclose(found.loss_weight[:2], [SMALL.best, 0.5], rtol=1e-6)
    key = jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(1000), 0), 20))[0]
    x, y = (np.asarray(part, np.float64)[:, : hold_out(20)[0]] for part in draw(key, SMALL, 20))
    for weight, error in zip(found.loss_weight.values, found.error.values, strict=True):
        root = np.sqrt([weight, 1.0 - weight])[:, None]
        theta = np.linalg.lstsq((root[..., None] * x).reshape(-1, 6), (root * y).reshape(-1))[0]
        np.testing.assert_allclose(error, np.square(theta - 6**-0.5).sum(), rtol=1e-3)
