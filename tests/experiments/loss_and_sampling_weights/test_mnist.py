"""Tests MNIST with flipped labels: each example is used once, weights move first, both configs run end to end."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import mnist, noisy_images, sentences
from experiments.loss_and_sampling_weights.noisy_images import Batch
from mixjax import data, rules, samplers
from mixjax.runner import experiment, results
from mixjax.runner.configs import load
from tests.whole import whole

CONFIGS = Path(__file__).parents[3] / "configs"
flip_labels, split, measure = map(jax.jit, (noisy_images.flip_labels, noisy_images.split, noisy_images.measure))
init = jax.jit(noisy_images.init, static_argnums=(1, 2))


def images(num, seed=0, pixels=12):
    rng = np.random.default_rng(seed)
    return rng.random((num, pixels), np.float32), rng.integers(0, 10, num).astype(np.int32)


@pytest.fixture
def batches():
    return {"train": Batch(*map(jnp.asarray, images(60))), "test": Batch(*map(jnp.asarray, images(40, 1)))}


def test_no_two_blocks_share_an_example(batches):
    halves = split(jax.random.key(0), batches["train"], 0.2)
    seen = [mnist.block(halves, jnp.arange(60)[:, None], t, 5) for t in range(6)]
    indices = np.concatenate([points.images[..., 0] for points in seen], axis=1)
    np.testing.assert_array_equal(indices, halves.indices)
    np.testing.assert_array_equal(np.concatenate([points.labels for points in seen], axis=1), halves.labels)


def test_mnist_trains_on_an_example_at_most_once(batches, monkeypatch):
    config = mnist.Mnist(batch_size=5, num_steps=6, record_every=3, hidden=4)
    numbered = batches | {"train": Batch(batches["train"].images.at[:, 0].set(jnp.arange(60)), batches["train"].labels)}
    used = []
    make_step = mnist.training.make_step

    def spy(losses, optimizer):
        step = make_step(losses, optimizer)

        def spied(state, batch, domain_ids):
            jax.debug.callback(lambda x, ids: used.append((x, ids)), batch.images[:, 0], domain_ids, ordered=True)
            return step(state, batch, domain_ids)

        return spied

    monkeypatch.setattr(mnist.training, "make_step", spy)
    monkeypatch.setattr(
        noisy_images, "for_methods", lambda _, run, *states: run(rules.fixed(), rules.variance_aware(), *states)
    )
    jax.block_until_ready(whole(mnist.train(config))(jax.random.key(3), {}, numbered))
    jax.effects_barrier()
    halves = split(jax.random.split(jax.random.key(3), 3)[0], numbered["train"], config.flip)
    assert [int((ids >= 0).sum()) for _, ids in used] == [5] * 6
    assert all((ids == domain).any() for _, ids in used for domain in (0, 1))
    for domain in (0, 1):
        trained = np.concatenate([x[ids == domain] for x, ids in used])
        assert len(np.unique(trained)) == len(trained)
        assert np.isin(trained, halves.indices[domain]).all()


def test_mnist_moves_the_weights_before_it_uses_them(batches):
    config = mnist.Mnist(batch_size=5, num_steps=1, record_every=1, hidden=4, learning_rate=0.1, gamma2=0.5)
    found = jax.jit(whole(mnist.train(config)))(jax.random.key(0), {}, batches)
    train_key, _, init_key = jax.random.split(jax.random.key(0), 3)
    halves = split(train_key, batches["train"], config.flip)
    params = init(init_key, 12, 4)
    measured = measure(params, mnist.block(halves, batches["train"].images, 0, 5))
    erma, va = rules.erma(0.01, 0.5), rules.variance_aware()
    c = erma.update(erma.init([0.5, 0.5]), **measured).weights
    q = va.update(va.init([0.5, 0.5]), loss_weights=c, **measured).weights
    assert float(c[0]) != 0.5
    np.testing.assert_allclose(found["loss_weight"][0], [0.5, 0.5, c[0], c[0]], rtol=1e-5)
    np.testing.assert_allclose(found["sampling_weight"][0, [0, 2, 3]], [0.5, 0.5, q[0]], rtol=1e-5)
    np.testing.assert_allclose(found["grad_std_noisy"][0], measured["grad_stds"][1], rtol=1e-4)
    np.testing.assert_allclose(found["gap"], 0.0, atol=1e-6)  # w = 1 before the first update
    assert samplers.allocate(q, 5).sum() == 5


def test_mnist_refuses_to_use_an_example_twice(fake):
    with pytest.raises(ValueError, match="7 steps of 60 new examples a domain need more than the 360 there are"):
        mnist.mnist(mnist.Mnist(batch_size=60, num_steps=7, record_every=7))
    with pytest.raises(ValueError, match="multiple of record_every"):
        mnist.mnist(mnist.Mnist(batch_size=5, num_steps=6, record_every=4))


@pytest.fixture
def fake(monkeypatch):
    """Small images in MNIST's place, so that no test needs a cache."""
    real = data.load

    def load(name):
        small = data.Images(*images(720), *images(40, 1), shape=(3, 4), num_classes=10, source="a test")
        return small if name == "mnist" else real(name)

    monkeypatch.setattr(data, "load", load)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "overrides", "names"),
    [
        ("quickstart.toml", ["num_steps=20", "sweep.gamma2=[0.05, 0.5]"], {"erma_improves", "erma_prefers_clean"}),
        (
            "loss_and_sampling_weights/mnist.toml",
            ["num_steps=6", "run.0.record_every=2", "run.1.record_every=3"],
            {name for name in sentences.SENTENCES if name.startswith("mnist_")},
        ),
    ],
)
def test_configs_end_to_end(path, overrides, names, fake, tmp_path):
    config = load(CONFIGS / path, [*overrides, "hidden=6", "sweep.seeds=2", "sweep.chunk=2"])
    assert config.sweep.first_seed >= 1000  # settings were chosen on seeds below
    out = experiment.run(config, out=tmp_path / "result")
    rows = {row["name"]: row for row in json.loads((out / "claims.json").read_text())}
    assert names <= set(rows)
    assert all(np.isfinite(row["value"]) and row["num_seeds"] == 2 for row in rows.values())
    assert (out / "figure.png").stat().st_size > 10_000
    for dataset in results.read(out).values():
        assert dataset.sizes["method"] == 4 and all(np.isfinite(variable).all() for variable in dataset.values())
        assert (dataset.loss_weight.sel({"method": "va"}) == 0.5).all()
        assert (dataset.loss_weight.sel({"method": "erma"}).isel(step=-1) != 0.5).all()
