"""Tests that every pair trains on a tiny problem, and that no weighting is plain SGD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.table.problems import Gaussians
from experiments.table.table import Table, load, table

TINY = {"batch_size": 8, "num_steps": 8, "probe_every": 2, "warmup": 0.0, "held_out": 6, "validation": 10}


@pytest.fixture(scope="module")
def trained(config):
    """A function of a pair's name, all of which one compiled program runs, on two Gaussian domains."""
    settings = Table(config.runs[0].values.pairs, gaussians=Gaussians(dim=4, num_examples=20), **TINY)
    experiment = table(settings)
    run, points = jax.jit(experiment.train), experiment.points
    names = list(dict.fromkeys(points["pair"]))

    def train(name, key=0, learning_rate=1.0):
        row = points["pair"].index(name)
        hparams = {column: jnp.float32(values[row]) for column, values in points.items() if column != "pair"}
        hparams |= {"pair": jnp.int32(names.index(name)), "learning_rate": jnp.float32(learning_rate)}
        return jax.tree.map(np.asarray, run(jax.random.key(key), hparams, None))

    return train, names, settings


def test_every_pair_trains_and_its_weights_stay_on_the_simplex(trained):
    train, names, _ = trained
    moved = {}
    for name in names:
        found = train(name)
        for kind in ("loss_weights", "sampling_weights"):
            np.testing.assert_allclose(found[kind].sum(), 1.0, rtol=1e-5)
            assert (found[kind] >= 0).all()
        assert np.isfinite(found["validation"]) and np.isfinite(found["test"])
        moved[name] = [abs(found[kind][0] - 0.5) > 1e-6 for kind in ("loss_weights", "sampling_weights")]
    assert moved["no weighting"] == moved["no weighting, random counts"] == [False, False]
    assert moved["VA"] == moved["gradient norm"] == [False, True]
    assert (
        moved["ERMA"] == moved["one-shot FGLS"] == moved["two-stage FGLS"] == moved["mirror descent"] == [True, False]
    )
    assert moved["ERMA + VA"] == moved["Aitken + VA"] == [True, True]


def test_no_weighting_is_sgd_on_the_mean_of_the_domains(trained):
    train, _, settings = trained
    setup_key, fit_key, _ = jax.random.split(jax.random.key(0), 3)
    setup = load(settings).setup(setup_key, None)
    step_key, ids = jax.random.split(fit_key)[0], jnp.repeat(jnp.arange(2), 4)
    params = np.zeros(4)
    for step in range(settings.num_steps):
        batch = setup.draw(jax.random.fold_in(step_key, step), ids)
        x, y = np.asarray(batch.scale)[:, None] * np.asarray(batch.x), np.asarray(batch.target)
        params = params - settings.learning_rate * 2.0 * (x @ params - y) @ x / 8
    np.testing.assert_allclose(train("no weighting")["test"], np.linalg.norm(params - 0.5), rtol=1e-4)
    held = setup.judge(jnp.asarray(params, jnp.float32))["validation"]
    np.testing.assert_allclose(train("no weighting")["validation"], held, rtol=1e-4)
