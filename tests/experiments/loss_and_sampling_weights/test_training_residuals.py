"""FGLS on training residuals: the estimates against NumPy, and a tiny run from the config to the claims."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import glm, linear
from experiments.loss_and_sampling_weights import training_residuals as tr
from experiments.loss_and_sampling_weights.exact_fits import draw
from experiments.loss_and_sampling_weights.sentences import SENTENCES
from mixjax.runner import configs, experiment, results

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "training_residuals.toml"
CHANGES = {"dim": 6, "small_sizes": (2, 6, 20), "hold_out_size": 30}
EARLY = {"dim": 10, "num_examples": 20, "num_steps": 20, "estimation_size": 5, "learning_rate": 0.0}
SMALL = tr.TrainingResiduals(**CHANGES, early=dataclasses.replace(tr.EARLY, **EARLY))
KEY = jax.random.key(1000)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run's folder, its claims by name and its metrics."""
    changes = CHANGES | {f"early.{name}": value for name, value in EARLY.items()}
    texts = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in changes.items()]
    config = configs.load(CONFIG, [*texts, "sweep.seeds=60", "sweep.chunk=60"])
    path = experiment.run(config, out=tmp_path_factory.mktemp("run") / "out")
    rows = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    return path, {row["name"]: row for row in rows}, results.read(path)["run"]


@pytest.mark.slow
def test_residuals_are_those_of_the_minimum_norm_fit(run):
    found = {name: values.sel(seed=1000).values for name, values in run[2].items()}
    train_key, hold_out_key = jax.random.split(jax.random.fold_in(KEY, 1))
    x, y = (np.asarray(part, np.float64) for part in draw(train_key, SMALL, 20))
    far_x, far_y = (np.asarray(part, np.float64) for part in draw(hold_out_key, SMALL, 30))
    for row, num in enumerate(SMALL.small_sizes):
        near_x, near_y = x[:, :num], y[:, :num]
        theta = np.linalg.pinv(near_x.reshape(-1, 6)) @ near_y.reshape(-1)
        train = np.square(near_x @ theta - near_y).mean(axis=1)
        far = np.square(far_x @ theta - far_y).mean(axis=1)
        np.testing.assert_allclose(found["residual"][row], [train.mean(), far.mean()], rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(found["estimate"][row, 1], far[1] / far.sum(), rtol=1e-3)
        if 2 * num > 6:
            np.testing.assert_allclose(found["estimate"][row, 0], train[1] / train.sum(), rtol=1e-3)
            np.testing.assert_allclose(found["relative_residual"][row], np.max(train / SMALL.noise), rtol=1e-3)
    assert found["relative_residual"][0] < 1e-8  # 4 points, 6 parameters
    np.testing.assert_allclose(found["estimate"][:, 1], found["reordered"][:, 1], rtol=1e-4)
    np.testing.assert_allclose(found["estimate"][1:, 0], found["reordered"][1:, 0], rtol=1e-3)


@pytest.mark.slow
def test_early_estimates_are_fgls_weights_of_the_losses(run):
    """The run's learning rate is 0: the estimate stays at ``L_2 / (L_1 + L_2)`` of the parameter zero."""
    found = run[2].early_estimate.sel(seed=1000, source="train").values
    data_key = jax.random.split(jax.random.fold_in(KEY, 3), 3)[0]
    for row, scales in zip(found, tr.SETTINGS.values(), strict=True):
        settings = dataclasses.replace(SMALL.early, scales=scales, noise=SMALL.noise)
        y = np.asarray(glm.data_set(data_key, settings, linear.label).target, np.float64).reshape(2, -1)[:, :5]
        losses = np.square(y).mean(axis=1)
        np.testing.assert_allclose(row, losses[1] / losses.sum(), rtol=1e-4)


def test_fits_must_begin_over_parameterised():
    with pytest.raises(ValueError, match="small_sizes"):
        tr.TrainingResiduals(small_sizes=(5, 20))


@pytest.mark.slow
def test_a_tiny_training_residuals_run_ends_in_claims(run):
    """The whole chain; what 60 draws of a tiny problem can decide is decided rightly."""
    path, rows, _ = run
    assert all(row["statement"].startswith("ours") for name, row in rows.items() if name not in SENTENCES)
    early = {"early_estimates_poor", "early_estimates_poor_hold_out"}
    assert set(rows) == {"fgls_ill_defined", "training_residuals_deviate"} | early
    assert rows["fgls_ill_defined"]["holds"], rows["fgls_ill_defined"]
    assert rows["training_residuals_deviate"]["holds"], rows["training_residuals_deviate"]
    assert (path / "figure.png").stat().st_size > 10_000


def test_a_sweep_decomposes_one_matrix_at_a_time():
    # A batch of them can take all threads of XLA's pool, and wait for them.
    def fits(key):
        return tr.residuals(key, dataclasses.replace(SMALL, small_sizes=(1, 4)))

    program = jax.jit(jax.vmap(fits)).lower(jax.random.split(jax.random.key(0), 3)).as_text()
    taken = re.findall(r"@lapack_sgesdd_ffi\(.*?: \(tensor<([0-9x]+)xf32>", program)
    assert taken and all(shape.count("x") == 1 for shape in taken)
