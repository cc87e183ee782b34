"""The methods on MNIST's domains: budgets, signals, the horizon."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fewer_weight_updates import mnist_domains, mnist_methods
from experiments.fewer_weight_updates.mnist_methods import Mnist
from mixjax import mixing, rules
from tests.experiments.fewer_weight_updates.made_up_mnist import SMALL


def test_steps_at_equal_compute_are_whole_rounds(monkeypatch):
    monkeypatch.setattr(mnist_methods, "COSTS", {"logistic": {"reverse": (3.0, 4.0), "norms": (1.0, 3.0)}})
    config = Mnist(num_steps=1000)
    known = mnist_methods.methods(config, 20)
    steps = {
        name: mnist_methods.affordable(config, known[name])
        for name in ("uniform", "T=1", "T=16", "auto", "doge", "exp3")
    }
    assert steps == {"uniform": 1000, "T=1": 142, "T=16": 304, "auto": 300, "doge": 250, "exp3": 1000}


def test_the_grid_covers_the_simplex():
    points = mnist_methods.grid(dataclasses.replace(SMALL, grid=5))
    assert len(np.unique(points.round(6), axis=0)) == len(points) == 56
    np.testing.assert_allclose(points.sum(axis=1), 1.0)
    assert len(mnist_methods.grid(Mnist(grid=5))) == 21


def test_signals_are_those_of_a_batch(problem):
    state = mixing.init_state(problem.params, problem.optimizer, [0.0, 0.0, 1.0, 0.0], rules.fixed())
    key = jax.random.key(5)
    batch = problem.draw(key)
    reference = jax.tree.map(lambda x: x + 0.1, problem.params)
    told = {
        kind: jax.jit(mnist_methods.signals(problem, kind, reference))(state, key)
        for kind in ("reference", "norms", "draw")
    }
    np.testing.assert_allclose(told["reference"]["losses"], np.log(10), rtol=1e-5)
    loss, grad = jax.jit(mnist_domains.cross_entropy), jax.jit(jax.grad(problem.loss))
    for d in range(4):
        one = jax.tree.map(lambda x, d=d: x[d], batch)
        np.testing.assert_allclose(told["reference"]["reference_losses"][d], loss(reference, one), rtol=1e-5)
        squares = sum(float((x**2).sum()) for x in jax.tree.leaves(grad(problem.params, one)))
        np.testing.assert_allclose(told["norms"]["grad_norms"][d], squares**0.5, rtol=1e-4)
    assert told["draw"]["counts"].tolist() == [0, 0, 1, 0]
    assert mnist_methods.signals(problem, None, None)(state, key) == {}


def test_horizon_is_measured(data):
    config = dataclasses.replace(SMALL, num_steps=512, learning_rate=0.5, l2=0.5)
    assert (
        1 <= mnist_methods.horizon(config, jax.tree.map(jnp.asarray, data)) < 32
    )  # contracts by 0.75 a step: 11 steps
