"""Redundancy's experiment: which images repeat, the spread of gradients, and a tiny run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import redundancy
from experiments.loss_and_sampling_weights.redundancy import Redundancy
from mixjax import signals
from mixjax.runner import configs, experiment

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "redundancy.toml"
TINY = Redundancy(
    distinct=(2, 12), num_examples=12, batch_size=6, num_steps=8, probe_every=4, gradient_size=6, jitter=0.1
)
KEY = jax.random.key(0)


def test_spread_is_that_of_per_example_gradients():
    rng = np.random.default_rng(0)
    params, inputs = jnp.asarray(rng.normal(size=(4, 10))), jnp.asarray(rng.normal(size=(14, 4)))
    labels, ids = np.arange(14) % 10, np.repeat(np.arange(2), 7)

    def loss(params, example):
        return redundancy.cross_entropies(params, jax.tree.map(lambda leaf: leaf[None], example))[0]

    expected = jax.jit(lambda p, *examples: signals.grad_stds(loss, p, examples, ids, 2))(params, inputs, labels)
    found = jax.jit(redundancy.grad_stds)(params, (inputs, labels), ids)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_domain_two_repeats_so_many_images():
    rng = np.random.default_rng(0)
    images, labels = rng.random((30, 5), np.float32), np.arange(30) % 10
    found = jax.jit(redundancy.train, static_argnums=1)(KEY, TINY, (images, labels))
    assert found["grad_std"].shape == (2, 2, 2) and found["sampling_share"].shape == (2, 2)

    shuffle_key, jitter_key, _ = jax.random.split(KEY, 3)
    order = np.asarray(jax.random.permutation(shuffle_key, 30))
    noise = 0.1 * np.asarray(jax.random.normal(jitter_key, (24, 5)))
    for row, distinct in enumerate(TINY.distinct):
        chosen = order[np.concatenate([np.arange(12), 12 + np.arange(12) % distinct])]
        assert len(set(chosen[12:])) == distinct and not set(chosen[:12]) & set(chosen[12:])
        inputs = np.concatenate([images[chosen] + noise, np.ones((24, 1))], axis=1)
        slopes = 0.1 - np.eye(10)[labels[chosen]]  # all parameters are zero
        grads = (inputs[:, :, None] * slopes[:, None]).reshape(2, 12, -1)
        v = np.sqrt(np.square(grads - grads.mean(axis=1, keepdims=True)).sum(axis=(1, 2)) / 11)
        np.testing.assert_allclose(found["first_std"][row], v, rtol=1e-4)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    changes = ["distinct=[3, 60]", "num_examples=60", "num_steps=40", "probe_every=10"]
    changes += ["sweep.seeds=20", "sweep.chunk=20"]
    path = experiment.run(configs.load(CONFIG, changes), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert set(rows) == {"redundancy_lowers_variance", "redundancy_lowers_va_share"}
    assert rows["redundancy_lowers_va_share"]["holds"]
    assert (path / "figure.png").stat().st_size > 10_000
