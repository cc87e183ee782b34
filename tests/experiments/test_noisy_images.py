"""Images with flipped labels: the split, the signals, the two training loops, and both configs end to end."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from experiments.loss_and_sampling_weights import mnist, noisy_images
from experiments.loss_and_sampling_weights.noisy_images import Batch
from experiments.shared import sentences
from mixjax import data, rules, samplers, signals
from mixjax.runner import experiment, results
from mixjax.runner.claims import versus
from mixjax.runner.configs import load

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIGS = Path(__file__).parents[2] / "configs"
flip_labels, split, measure = map(jax.jit, (noisy_images.flip_labels, noisy_images.split, noisy_images.measure))
init = jax.jit(noisy_images.init, static_argnums=(1, 2))


def images(num, seed=0, pixels=12):
    rng = np.random.default_rng(seed)
    return rng.random((num, pixels), np.float32), rng.integers(0, 10, num).astype(np.int32)


@pytest.fixture
def batches():
    return {"train": Batch(*map(jnp.asarray, images(60))), "test": Batch(*map(jnp.asarray, images(40, 1)))}


def test_flipped_labels_are_wrong_uniformly_and_as_often_as_asked():
    labels = jnp.tile(jnp.arange(10), 5000)
    flipped = flip_labels(jax.random.key(0), labels, 0.2)
    rate = float((flipped != labels).mean())
    assert abs(rate - 0.2) < 4 * (0.2 * 0.8 / labels.size) ** 0.5
    shift = np.asarray((flipped - labels) % 10)
    counts = np.bincount(shift, minlength=10)[1:]
    assert (abs(counts - counts.mean()) < 4.5 * counts.mean() ** 0.5).all()
    assert (flip_labels(jax.random.key(0), labels, 0.0) == labels).all()
    assert (flip_labels(jax.random.key(0), labels, 1.0) != labels).all()


def test_split_is_disjoint_and_leaves_the_clean_half_alone():
    pixels, labels = images(1001)
    whole = Batch(jnp.asarray(pixels), jnp.asarray(labels))
    one, again, other = (split(jax.random.key(seed), whole, 0.5) for seed in (0, 0, 1))
    assert one.indices.shape == one.labels.shape == (2, 500)
    assert len(np.unique(one.indices)) == 1000
    np.testing.assert_array_equal(one.labels[0], labels[one.indices[0]])
    wrong = float((one.labels[1] != labels[one.indices[1]]).mean())
    assert abs(wrong - 0.5) < 4 * (0.25 / 500) ** 0.5
    np.testing.assert_array_equal(one.indices, again.indices)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert 0.4 < np.isin(one.indices[0], other.indices[0]).mean() < 0.6


def test_signals_equal_those_of_the_library():
    params = init(jax.random.key(0), 12, 7)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    pixels, labels = images(2 * 9)
    batch = Batch(jnp.asarray(pixels).reshape(2, 9, -1), jnp.asarray(labels).reshape(2, 9))
    flat, ids = Batch(pixels, jnp.asarray(labels)), jnp.repeat(jnp.arange(2), 9)

    @jax.jit
    def expect(params):
        found = signals.moments(noisy_images.losses(params, flat), ids, 2).signals()
        return found | {"grad_stds": signals.grad_stds(noisy_images.losses, params, flat, ids, 2)}

    found, expected = measure(params, batch), expect(params)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_duplicates_have_no_spread():
    params = init(jax.random.key(0), 12, 7)
    batch = Batch(jnp.ones((2, 5, 12)), jnp.full((2, 5), 3))
    np.testing.assert_allclose(measure(params, batch)["grad_stds"], 0.0, atol=1e-2)


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
    monkeypatch.setattr(noisy_images, "for_methods", lambda _, run: run(rules.fixed(), rules.variance_aware()))
    jax.block_until_ready(mnist.train(jax.random.key(3), config, numbered))
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
    found = jax.jit(mnist.train, static_argnums=1)(jax.random.key(0), config, batches)
    train_key, _, init_key = jax.random.split(jax.random.key(0), 3)
    halves = split(train_key, batches["train"], config.flip)
    params = init(init_key, 12, 4)
    measured = measure(params, mnist.block(halves, batches["train"].images, 0, 5))
    erma, va = rules.erma(0.01, 0.5), rules.variance_aware()
    c = erma.update(erma.init([0.5, 0.5]), **measured).weights
    q = va.update(va.init([0.5, 0.5]), loss_weights=c, **measured).weights
    assert float(c[0]) != 0.5
    np.testing.assert_allclose(found["loss_weight"][:, 0], [0.5, 0.5, c[0], c[0]], rtol=1e-5)
    np.testing.assert_allclose(found["sampling_weight"][[0, 2, 3], 0], [0.5, 0.5, q[0]], rtol=1e-5)
    np.testing.assert_allclose(found["grad_std_noisy"][:, 0], measured["grad_stds"][1], rtol=1e-4)
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


def test_claims_are_judged_at_the_first_point_and_tell_the_others():
    one = xarray.Dataset(
        {"loss_weight": (("gamma2", "seed"), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}, {"gamma2": [0.1, 1.0]}
    )

    def judge(dataset):
        return versus("name", dataset.loss_weight, ">=", 0.0, statement="statement", source="source")

    claim = noisy_images.judged({"run": one}, judge, "why")
    assert claim.value == 2.0 and claim.note == "why; gamma2 1: 5 ± 0.58, holds"
    claim = noisy_images.judged({"a": one, "b": one}, judge)
    assert claim.note.count("holds") == 3 and "b, gamma2 0.1: 2 ± 0.58" in claim.note
    assert list(noisy_images.points({"run": one.isel(gamma2=0)})) == [""]


def test_runs_that_diverge_have_no_accuracy_and_a_figure_all_the_same(tmp_path):
    overrides = ["num_steps=20", "hidden=6", "sweep.seeds=2", "sweep.learning_rate=[0.3, 1e30]"]
    found = results.read(experiment.run(load(CONFIGS / "quickstart.toml", overrides), out=tmp_path / "result"))["run"]
    assert np.isfinite(found.accuracy[0]).all() and np.isnan(found.accuracy[1]).all()
    assert noisy_images.limits([found.isel(learning_rate=1)], "accuracy") == (0.0, 1.0)
    assert (tmp_path / "result/figure.png").exists()
