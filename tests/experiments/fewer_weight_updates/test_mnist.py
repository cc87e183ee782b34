"""The methods on MNIST's domains: budgets, signals, training, the config."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax.data
from experiments.fewer_weight_updates import mnist, mnist_domains
from experiments.fewer_weight_updates.mnist import Mnist
from mixjax import mixing, rules
from mixjax.runner import configs
from tests.experiments.fewer_weight_updates.made_up_mnist import SMALL, fake_images

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = Path(__file__).parents[3] / "configs" / "fewer_weight_updates" / "mnist.toml"


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
