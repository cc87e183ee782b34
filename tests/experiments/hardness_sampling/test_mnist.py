"""Tests the experiment on imbalanced MNIST, and runs it, tiny, from config to claims."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.hardness_sampling import imbalanced, mnist, sentences
from mixjax.runner import configs, experiment, results
from tests.experiments.hardness_sampling.cases import PROBLEM

FOLDER = Path(__file__).parents[3] / "configs" / "hardness_sampling"


NAMES = {name for name in sentences.SENTENCES if name.startswith(("mnist_", "importance_sampling_compensates"))}


start = jax.jit(imbalanced.start, static_argnums=(1, 3))


def test_methods_start_from_one_network(images):
    starts = [
        start(jax.random.key(5), PROBLEM, images, mnist.scheme(PROBLEM, 546, kind, jnp.float32(1.0)))
        for kind in ("erm", "wr", "chi2")
    ]
    for parts, carry in starts[1:]:
        np.testing.assert_array_equal(parts.kept, starts[0][0].kept)
        for a, b in zip(*map(jax.tree.leaves, (carry.params, starts[0][1].params)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_fresh_history_has_no_distance_and_a_stale_one_is_compensated():
    fresh = jax.random.uniform(jax.random.key(0), (100,))
    measure = jax.jit(mnist.freshness, static_argnums=4)
    found = measure(jax.random.key(1), jnp.float32(2.0), fresh, fresh, 64)
    assert float(found["tv_stale"]) < 1e-5 and float(found["tv_clipped"]) < 1e-5
    np.testing.assert_allclose(found["bias"][:4], 0.0, atol=4 * float(found["error"][0]) / mnist.NUM_BATCHES**0.5)
    assert float(found["bias"][4]) < -0.05  # 64 of 100 without replacement: nearly uniform

    stale = jax.random.uniform(jax.random.key(2), (100,))
    found = measure(jax.random.key(1), jnp.float32(1.0), stale, fresh, 64)  # ratios within the clip
    expected = 0.5 * jnp.abs(jax.nn.softmax(stale) - jax.nn.softmax(fresh)).sum()
    np.testing.assert_allclose(found["tv_stale"], expected, rtol=1e-4)
    assert float(found["tv_clipped"]) < 1e-5
    assert abs(float(found["bias"][3])) < abs(float(found["bias"][0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"methods": ("erm", "adam")}, "methods must be among .* got .'adam'."), ({"num_steps": 10}, "multiple of")],
)
def test_mnist_refuses(change, message, images):
    with pytest.raises(ValueError, match=message):
        mnist.mnist(mnist.Mnist(**change))


@pytest.mark.slow
def test_config_end_to_end(images, first_run_only, tmp_path):
    overrides = [f"run.{i}.{key}={value}" for i in range(4) for key, value in (("num_steps", 24), ("record_every", 2))]
    config = configs.load(
        FOLDER / "mnist.toml",
        ["keep=0.1", "batch_size=8", "probe_size=106", "test_size=120", "sweep.seeds=2", *overrides],
    )
    assert config.sweep.first_seed >= 1000
    out = experiment.run(config, out=tmp_path / "result")
    rows = {row["name"]: row for row in json.loads((out / "claims.json").read_text())}
    assert set(rows) >= NAMES and (out / "figure.png").stat().st_size > 10_000
    for name, row in rows.items():
        assert row["statement"] == sentences.SENTENCES[name][1] if name in NAMES else row["statement"][:4] == "ours"
        assert np.isfinite(row["value"]), name
    data = results.read(out)["MLP"]
    assert all(np.isfinite(variable).all() for variable in data.values())
    assert (data["effective_sample_size"].sel({"method": "erm"}) > 0.999).all()
    assert (data["tv_stale"].sel({"method": "wr_0"}) < 1e-4).all()
    assert (data["effective_sample_size"].sel({"method": "wr_100"}) < 0.5).any()
    start = data["train_loss"].isel(step=0)
    assert (data["train_loss"].sel({"method": "erm"}).isel(step=-1) < start.sel({"method": "erm"})).all()
