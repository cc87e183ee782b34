"""MNIST's domains: what they hold, the methods' budgets and signals, claims in both directions, a tiny run."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.fewer_weight_updates import mnist, mnist_claims, mnist_domains, mnist_figure
from experiments.fewer_weight_updates.mnist import Mnist
from mixjax import mixing, rules
from mixjax.runner import configs

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


@pytest.fixture(scope="module")
def data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        yield mnist_domains.load()


@pytest.fixture(scope="module")
def problem(data):
    compiled = jax.jit(lambda key, images: split(key, SMALL, images))
    with pytest.MonkeyPatch.context() as patch:
        split = mnist_domains.split
        patch.setattr(mnist_domains, "split", lambda key, config, images: compiled(key, images))
        return mnist_domains.setup(jax.random.key(3), SMALL, jax.tree.map(jnp.asarray, data))


def numbered(data):
    """The training images, each of which shows its own number."""
    return data["train"]._replace(images=np.tile(np.arange(len(data["train"].labels))[:, None], (1, 2)))


# --- domains and models -----------------------------------------------------------------------------------------------


def test_pooling_averages_two_by_two():
    image = np.arange(784.0).reshape(1, 784)
    pooled = mnist_domains.pool(image)
    assert pooled.shape == (1, 196)
    np.testing.assert_allclose(pooled[0, [0, 1, 14]], [(0 + 1 + 28 + 29) / 4, (2 + 3 + 30 + 31) / 4, 56 + 14.5])


def test_domains_are_what_they_say(data):
    images = numbered(data)
    split = jax.jit(lambda key, images: mnist_domains.split(key, SMALL, images))
    parts = split(jax.random.key(0), images)
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
    other = split(jax.random.key(1), images)
    assert set(np.asarray(other.train.images[:, 0])) != set(ids)


def test_every_row_of_a_batch_comes_from_its_domain(data):
    @jax.jit
    def draw(train):
        problem = mnist_domains.setup(jax.random.key(0), SMALL, data | {"train": train})
        return problem.split.train.images[:, 0], problem.draw(jax.random.key(1))

    ids, batch = draw(numbered(data))
    assert batch.images.shape == (4, 32, 2) and batch.labels.shape == (4, 32)
    for row, part in zip(batch.images[..., 0], np.split(np.asarray(ids), [300, 360, 450]), strict=True):
        assert set(np.asarray(row)) <= set(part) and len(set(np.asarray(row))) > 15


def test_sizes_of_the_models():
    sizes = {}
    for model in ("logistic", "mlp"):
        params = jax.eval_shape(lambda key, m=model: mnist_domains.init(key, Mnist(model=m), 196), jax.random.key(0))
        sizes[model] = sum(x.size for x in jax.tree.leaves(params))
    assert sizes == {"logistic": 1970, "mlp": 13_258}


def test_scores_and_loss_by_hand(problem):
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(196, 3)), rng.normal(size=(3, 10))
    params = jax.tree.map(jnp.asarray, [(w, np.ones(3)), (v, np.zeros(10))])
    x, y = rng.random((5, 196)), np.arange(5)
    cross_entropy, loss = jax.jit(mnist_domains.cross_entropy), jax.jit(problem.loss)
    expected = np.maximum(x @ w + 1, 0) @ v
    np.testing.assert_allclose(jax.jit(mnist_domains.scores)(params, x), expected, rtol=1e-4, atol=1e-4)
    value = np.mean(np.log(np.exp(expected).sum(axis=1)) - expected[np.arange(5), y])
    batch = mnist_domains.Batch(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(cross_entropy(params, batch), value, rtol=1e-4)
    squares = (w**2).sum() + 3 + (v**2).sum()
    np.testing.assert_allclose(loss(params, batch), value + 0.0005 * squares, rtol=1e-4)


def test_training_on_the_validation_images_alone(problem):
    grad = jax.jit(jax.grad(problem.loss))
    params = problem.params
    for _ in range(2):
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad(params, problem.split.validation))
    found = jax.jit(lambda: mnist_domains.on_validation_alone(problem, 2))()
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
    told = {
        kind: jax.jit(mnist.signals(problem, kind, reference))(state, key) for kind in ("reference", "norms", "draw")
    }
    np.testing.assert_allclose(told["reference"]["losses"], np.log(10), rtol=1e-5)
    loss, grad = jax.jit(mnist_domains.cross_entropy), jax.jit(jax.grad(problem.loss))
    for d in range(4):
        one = jax.tree.map(lambda x, d=d: x[d], batch)
        np.testing.assert_allclose(told["reference"]["reference_losses"][d], loss(reference, one), rtol=1e-5)
        squares = sum(float((x**2).sum()) for x in jax.tree.leaves(grad(problem.params, one)))
        np.testing.assert_allclose(told["norms"]["grad_norms"][d], squares**0.5, rtol=1e-4)
    assert told["draw"]["counts"].tolist() == [0, 0, 1, 0]
    assert mnist.signals(problem, None, None)(state, key) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (10, 10)}, r"sizes must be one for each of noisy, skewed, swapped, got \(10, 10\)."),
        ({"num_steps": 512}, r"num_steps = 512 leave no whole round at equal compute for \['T=256'\]."),
    ],
)
def test_mnist_refuses(change, message, data, monkeypatch):
    monkeypatch.setattr(mnist, "horizon", lambda config, data: 4)
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
        assert len(rows) == 18 and all(claim.statement.startswith("ours: ") for claim in rows.values())
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


@pytest.fixture(scope="module")
def trained(data):
    """A seed, 128 steps, some of the methods."""
    config = Mnist(num_steps=128, batch_size=4, validation=20, grid=2)
    known = mnist.methods(config, 8)
    few = {name: known[name] for name in ("uniform", "T=16", "doge", "doremi")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "methods", lambda config, auto: few)
        program = jax.jit(lambda key, data: mnist.train(key, config, 8, data))
        return config, few, jax.tree.map(np.asarray, program(jax.random.key(0), data))


@pytest.mark.slow
def test_training_learns_and_moves_weights(trained):
    config, few, found = trained
    assert all(np.isfinite(values).all() for values in found.values())
    names = list(few)
    assert found["accuracy"][names.index("T=16"), 1] > 30
    assert found["steps"][names.index("T=16")].tolist() == [mnist.affordable(config, few["T=16"]), 128]
    assert found["T"].tolist() == [1, 16, 1, 1]
    np.testing.assert_allclose(found["weights"].sum(axis=-1), 1.0, rtol=1e-4)
    moved = abs(found["weights"] - 1 / 3).max(axis=-1)
    assert (moved[0] < 1e-6).all() and (moved[1:, 1] > 1e-4).all()


@pytest.mark.slow
def test_the_compute_budget_is_a_shorter_run_and_fixed_weights_are_retrained_the_same_way(trained, data):
    config, few, found = trained
    losses, names = found["validation_loss"], list(few)
    np.testing.assert_allclose(losses[0, 0], losses[0, 1], rtol=1e-5)  # plain training costs what plain training costs
    np.testing.assert_allclose(found["retrained_validation_loss"][0], losses[0, 1], rtol=1e-3)
    keys = jax.random.split(jax.random.key(0), 3)
    short = dataclasses.replace(config, num_steps=mnist.affordable(config, few["doge"]))

    @jax.jit
    def run(data):
        problem = mnist_domains.setup(keys[0], short, data)
        state, _ = mnist.fit(short, problem, few["doge"], keys[1])
        return mnist_domains.worth(problem, state.params)["validation_loss"], state.rule_state.weights

    loss, weights = run(jax.tree.map(jnp.asarray, data))
    row = names.index("doge")
    np.testing.assert_allclose(losses[row, 0], loss, rtol=1e-3)
    np.testing.assert_allclose(found["weights"][row, 0], weights, rtol=1e-3)
    assert abs(losses[row, 1] - loss) > 1e-3


@pytest.mark.slow
def test_the_config_names_everything_its_runs_return(data, monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", fake_images)
    monkeypatch.setattr(mnist, "horizon", lambda config, data: 61)
    config = configs.load(CONFIG)
    assert config.sweep.first_seed >= 1000 and config.sweep.seeds >= 10
    assert ["clean" in run.values.domains for run in config.runs] == [False, True, False, True]
    values = config.runs[1].values
    made = mnist.mnist(values)
    shapes = jax.eval_shape(made.train, jax.random.key(0), {}, made.data)
    sizes = {dim: len(labels) for dim, labels in made.coords.items()}
    assert sizes == {"method": 15, "budget": 2, "domain": 4, "point": 56}
    assert {name: shape.shape for name, shape in shapes.items()} == {
        name: tuple(sizes[dim] for dim in dims) for name, dims in made.dims.items()
    }
    assert set(made.units) <= set(shapes)


def test_horizon_is_measured(data):
    config = dataclasses.replace(SMALL, num_steps=512, learning_rate=0.5, l2=0.5)
    assert 1 <= mnist.horizon(config, jax.tree.map(jnp.asarray, data)) < 32  # contracts by 0.75 a step: 11 steps
