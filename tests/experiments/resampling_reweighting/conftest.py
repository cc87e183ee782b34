"""Provides a small problem of two domains, and runs of a config so small that they take seconds."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.resampling_reweighting.domains import Problem
from mixjax.runner import configs, experiment

FOLDER = Path(__file__).parents[3] / "configs" / "resampling_reweighting"
SIZES = np.array([30, 10])


def losses(tape, params, batch):
    x, y = batch
    return 0.5 * jnp.square(tape.dense(jnp.tanh(tape.dense(x, params[0])), params[1])[:, 0] - y)


@pytest.fixture(scope="module")
def toy():
    """Returns a problem of two domains, the second of larger gradients, with its training set and parameters."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (40, 3)) * jnp.repeat(jnp.array([1.0, 3.0]), SIZES)[:, None]
    examples = x, jax.random.normal(keys[1], (40,)) * jnp.repeat(jnp.array([1.0, 4.0]), SIZES)
    params = jax.random.normal(keys[2], (3, 4)), jax.random.normal(keys[3], (4, 1))
    problem = Problem(("small", "large"), SIZES, None, lambda *_: examples, lambda *_: params, losses)
    return problem, examples, params


@pytest.fixture
def run_tiny(tmp_path):
    """Returns a function that runs a config with changes that make it tiny, and returns its claims by name."""

    def run(name, *changes):
        config = configs.load(FOLDER / f"{name}.toml", [*changes, "sweep.seeds=4", "sweep.chunk=4"])
        out = experiment.run(config, out=tmp_path / "out")
        rows = json.loads((out / "claims.json").read_text(encoding="utf-8"))
        assert rows and all(np.isfinite(row["value"]) for row in rows)
        assert (out / "figure.png").stat().st_size > 20_000
        return {row["name"]: row for row in rows}

    return run
