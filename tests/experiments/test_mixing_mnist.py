"""MNIST's domains: what they hold, the methods' budgets and signals, claims in both directions, a tiny run."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray

import mixjax.data
from experiments.fewer_weight_updates import mnist, mnist_claims, mnist_domains, mnist_figure
from experiments.fewer_weight_updates.mnist import Mnist
from mixjax import configs, experiment, mixing, results, rules

CONFIG = Path(__file__).parents[2] / "configs" / "fewer_weight_updates" / "mnist.toml"
DOMAINS = ("noisy", "skewed", "swapped", "clean")
SMALL = Mnist(domains=DOMAINS, sizes=(300, 60, 90, 40), validation=50)


def fake_images(name="mnist"):
    """Ten noisy patterns, 1,200 training and 100 test images."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784))
    labels = [np.arange(size, dtype=np.int32) % 10 for size in (1200, 100)]
    images = [(patterns[y] + 0.2 * rng.standard_normal((len(y), 784))).clip(0, 1).astype(np.float32) for y in labels]
    return mixjax.data.Images(images[0], labels[0], images[1], labels[1], (28, 28), 10, "a test")


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", fake_images)
    return jax.tree.map(jnp.asarray, mnist_domains.load())


@pytest.fixture
def problem(data):
    return mnist_domains.setup(jax.random.key(3), SMALL, data)


def numbered(data):
    """The training images, each of which shows its own number."""
    labels = data["train"].labels
    return data["train"]._replace(images=jnp.tile(jnp.arange(len(labels))[:, None], (1, 2)))


# --- domains and models -----------------------------------------------------------------------------------------------


def test_pooling_averages_two_by_two():
    image = np.arange(784.0).reshape(1, 784)
    pooled = mnist_domains.pool(image)
    assert pooled.shape == (1, 196)
    np.testing.assert_allclose(pooled[0, [0, 1, 14]], [(0 + 1 + 28 + 29) / 4, (2 + 3 + 30 + 31) / 4, 56 + 14.5])


def test_domains_are_what_they_say(data):
    images = numbered(data)
    parts = mnist_domains.split(jax.random.key(0), SMALL, images)
    ids, held_out = np.asarray(parts.train.images[:, 0]), np.asarray(parts.validation.images[:, 0])
    assert len(np.unique([*ids, *held_out])) == 490 + 50
    truth, labels = np.asarray(images.labels)[ids], np.asarray(parts.train.labels)
    noisy, skewed, swapped, clean = np.split(np.arange(490), [300, 360, 450])
    wrong = (truth != labels)[noisy].mean()
    assert abs(wrong - 0.6) < 3 * (0.6 * 0.4 / 300) ** 0.5
    assert len(np.unique(truth[noisy])) == len(np.unique(truth[clean])) == 10  # what comes after skewed is not skewed
    assert (truth[skewed] < 4).all() and (truth == labels)[skewed].all()
    pairs = {1: 7, 7: 1, 3: 8, 8: 3, 4: 9, 9: 4, 5: 6, 6: 5, 0: 0, 2: 2}
    assert labels[swapped].tolist() == [pairs[y] for y in truth[swapped]] and len(set(truth[swapped])) == 10
    assert (truth == labels)[clean].all()
    np.testing.assert_array_equal(parts.validation.labels, np.asarray(images.labels)[held_out])
    other = mnist_domains.split(jax.random.key(1), SMALL, images)
    assert set(np.asarray(other.train.images[:, 0])) != set(ids)


def test_every_row_of_a_batch_comes_from_its_domain(data):
    problem = mnist_domains.setup(jax.random.key(0), SMALL, data | {"train": numbered(data)})
    ids = problem.split.train.images[:, 0]
    batch = problem.draw(jax.random.key(1))
    assert batch.images.shape == (4, 32, 2) and batch.labels.shape == (4, 32)
    for row, part in zip(batch.images[..., 0], np.split(np.asarray(ids), [300, 360, 450]), strict=True):
        assert set(np.asarray(row)) <= set(part) and len(set(np.asarray(row))) > 15


def test_sizes_of_the_models():
    sizes = {}
    for model in ("logistic", "mlp"):
        params = mnist_domains.init(jax.random.key(0), Mnist(model=model), 196)
        sizes[model] = sum(x.size for x in jax.tree.leaves(params))
        assert (mnist_domains.scores(params, jnp.ones((3, 196))) == 0.0).all()
    assert sizes == {"logistic": 1970, "mlp": 13_258}


def test_scores_and_loss_by_hand(problem):
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(196, 3)), rng.normal(size=(3, 10))
    params = jax.tree.map(jnp.asarray, [(w, np.ones(3)), (v, np.zeros(10))])
    x, y = rng.random((5, 196)), np.arange(5)
    expected = np.maximum(x @ w + 1, 0) @ v
    np.testing.assert_allclose(mnist_domains.scores(params, jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
    loss = np.mean(np.log(np.exp(expected).sum(axis=1)) - expected[np.arange(5), y])
    batch = mnist_domains.Batch(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(mnist_domains.cross_entropy(params, batch), loss, rtol=1e-4)
    squares = (w**2).sum() + 3 + (v**2).sum()
    np.testing.assert_allclose(problem.loss(params, batch), loss + 0.0005 * squares, rtol=1e-4)


def test_training_on_the_validation_images_alone(problem):
    value = jax.value_and_grad(problem.loss)
    params = problem.params
    for _ in range(2):
        params = optax.tree.add_scale(params, -0.1, value(params, problem.split.validation)[1])
    found = mnist_domains.on_validation_alone(problem, 2)
    for a, b in zip(*map(jax.tree.leaves, (found, params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


# --- methods ----------------------------------------------------------------------------------------------------------


def test_steps_at_equal_compute_are_whole_rounds(monkeypatch):
    monkeypatch.setattr(mnist, "COSTS", {"logistic": {"reverse": (3.0, 4.0), "norms": (1.0, 3.0)}})
    config = Mnist(num_steps=1000)
    known = mnist.methods(config, 20)
    steps = {name: mnist.affordable(config, known[name]) for name in ("uniform", "T=1", "T=16", "auto", "doge", "exp3")}
    assert steps == {"uniform": 1000, "T=1": 142, "T=16": 304, "auto": 300, "doge": 250, "exp3": 1000}


def test_the_grid_covers_the_simplex():
    points = mnist.grid(dataclasses.replace(SMALL, grid=5))
    assert len(np.unique(points.round(6), axis=0)) == len(points) == 56
    np.testing.assert_allclose(points.sum(axis=1), 1.0)
    assert len(mnist.grid(Mnist(grid=5))) == 21


def test_signals_are_those_of_a_batch(problem):
    state = mixing.init_state(problem.params, problem.optimizer, [0.0, 0.0, 1.0, 0.0], rules.fixed())
    key = jax.random.key(5)
    batch = problem.draw(key)
    reference = jax.tree.map(lambda x: x + 0.1, problem.params)
    found = mnist.signals(problem, "reference", reference)(state, key)
    np.testing.assert_allclose(found["losses"], np.log(10), rtol=1e-5)
    for d in range(4):
        one = jax.tree.map(lambda x, d=d: x[d], batch)
        np.testing.assert_allclose(found["reference_losses"][d], mnist_domains.cross_entropy(reference, one), rtol=1e-5)
        norm = optax.tree.norm(jax.grad(problem.loss)(problem.params, one))
        np.testing.assert_allclose(mnist.signals(problem, "norms", None)(state, key)["grad_norms"][d], norm, rtol=1e-4)
    assert mnist.signals(problem, "draw", None)(state, key)["counts"].tolist() == [0, 0, 1, 0]
    assert mnist.signals(problem, None, None)(state, key) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (10, 10)}, r"sizes must be one for each of noisy, skewed, swapped, got \(10, 10\)."),
        ({"num_steps": 512}, r"num_steps = 512 leave no whole round at equal compute for \['T=256'\]."),
    ],
)
def test_mnist_refuses(change, message, data):
    with pytest.raises(ValueError, match=message):
        mnist.mnist(Mnist(validation=20, **change))


# --- claims and figure ------------------------------------------------------------------------------------------------


def made_up(accuracy, loss, grid_loss, seeds=4):
    """Results by method: the same for every seed but for noise, weights that did not move at the end."""
    names = list(mnist.methods(Mnist(), 40))
    noise = np.random.default_rng(0).normal(0, 1e-3, (seeds, len(names), 2))
    shape, share = (seeds, len(names), 2, 3), np.array([0.5, 0.3, 0.2])
    T = [method.T for method in mnist.methods(Mnist(), 40).values()]
    variables = {
        "accuracy": (("seed", "method", "budget"), np.array([accuracy(n) for n in names])[:, None] + noise),
        "validation_loss": (("seed", "method", "budget"), np.array([loss(n) for n in names])[:, None] + noise),
        "weights": (("seed", "method", "budget", "domain"), np.broadcast_to(share, shape)),
        "mean_weights": (("seed", "method", "budget", "domain"), np.broadcast_to(share, shape)),
        "steps": (("seed", "method", "budget"), np.full((seeds, len(names), 2), 2048)),
        "T": (("seed", "method"), np.tile(T, (seeds, 1))),
        "retrained_accuracy": (("seed", "method"), np.array([accuracy(n) for n in names]) + noise[..., 0]),
        "validation_alone_accuracy": (("seed",), 70.0 + noise[:, 0, 0]),
        "grid_accuracy": (("seed", "point"), np.full((seeds, 2), 60.0)),
        "grid_validation_loss": (("seed", "point"), np.array([grid_loss + 1.0, grid_loss]) + noise[:, 0]),
    }
    coords = {"method": names, "budget": ["compute", "updates"], "domain": ["noisy", "skewed", "swapped"]}
    return xarray.Dataset(variables, coords | {"seed": range(seeds), "point": ["1 0 0", "0.4 0.6 0"]})


def long_horizons_win(name):
    return 80.0 if name in ("T=16", "T=64", "auto") else 60.0 if name != "uniform" else 50.0


def long_horizons_lose(name):
    return 40.0 if name in ("T=16", "auto", "alignment T=16") else 45.0 if name != "uniform" else 50.0


def test_claims_are_decided_in_both_directions():
    good = made_up(long_horizons_win, lambda n: 2.0 - long_horizons_win(n) / 100, 1.3)
    bad = made_up(long_horizons_lose, lambda n: 2.0 - long_horizons_lose(n) / 100, 1.3)
    for data, holds in ((good, True), (bad, False)):
        rows = {claim.name: claim for claim in mnist_claims.claims({"A run": data})}
        assert len(rows) == 17 and all(claim.statement.startswith("ours: ") for claim in rows.values())
        wrong = {name for name, claim in rows.items() if claim.holds is not holds}
        assert wrong == (set() if holds else {"a_run_mean_near_last"})  # weights stand still in both
    rows = {claim.name: claim for claim in mnist_claims.claims({"A run": good})}
    assert abs(rows["a_run_T16_above_T1"].value - 20.0) < 0.01
    assert "T = 256: 0" in rows["a_run_T16_above_T1"].note.replace("-0", "0")
    assert abs(rows["a_run_best_T_near_grid"].value + 0.1) < 0.01  # 1.2 for the best T, 1.3 for the second point
    assert "0.40/0.60/0.00" in rows["a_run_best_T_near_grid"].note
    moved = good.assign(mean_weights=good["mean_weights"] * 0 + 1 / 3)
    assert [c.holds for c in mnist_claims.claims({"r": moved}) if c.name == "r_mean_near_last"] == [False]


def test_without_the_grid_there_are_no_rows_about_it():
    data = made_up(long_horizons_win, lambda n: 1.0, 1.3).drop_dims("point")
    assert not any("grid" in claim.name or "retrained" in claim.name for claim in mnist_claims.claims({"r": data}))


def test_figure_shows_every_method_and_domain_once():
    data = made_up(long_horizons_win, lambda n: 1.0, 1.3)
    figure = mnist_figure.figure({"A run": data})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == len(set(texts)) == 6 + 1 + 3 + 6 + 1
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)


# --- the config -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(data, tmp_path):
    changes = ["num_steps=128", "horizons=[1,16]", "alignments=[1,16]", "batch_size=4", "validation=20"]
    changes += ["sweep.seeds=2", "run.0.grid=2"]
    config = configs.load(CONFIG, changes)
    assert config.sweep.first_seed >= 1000 and [run.values.grid > 0 for run in config.runs] == [
        True,
        True,
        False,
        False,
    ]
    config = dataclasses.replace(config, runs=config.runs[:1])
    out = experiment.run(config, out=tmp_path / "out")
    rows = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    assert len(rows) == 17 and all(np.isfinite(row["value"]) for row in rows)
    (found,) = results.read(out).values()
    assert all(np.isfinite(values).all() for values in found.values())

    def of(metric, method):
        return np.asarray(found[metric].sel({"method": method}))

    assert (of("accuracy", "T=16")[:, 1] > 30).all()  # it learns
    np.testing.assert_allclose(of("accuracy", "uniform")[:, 0], of("accuracy", "uniform")[:, 1])
    np.testing.assert_allclose(
        of("retrained_validation_loss", "uniform"), of("validation_loss", "uniform")[:, 1], rtol=1e-3
    )
    np.testing.assert_allclose(found["weights"].sum("domain"), 1.0, rtol=1e-4)
    assert not np.allclose(of("validation_loss", "T=16")[:, 0], of("validation_loss", "T=16")[:, 1])
    assert not np.allclose(of("weights", "doge"), 1 / 3, atol=1e-3)
    assert found.sizes["point"] == 6
