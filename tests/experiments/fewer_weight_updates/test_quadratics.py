"""Quadratics: the best weights, and rounds beside those of mixing.fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.fewer_weight_updates import quadratics
from mixjax import mixing, rules

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    return jax.jit(quadratics.instance, static_argnums=(1, 2))(KEY, 3, 4)


def test_the_best_weights_of_an_instance_are_the_best(problem):
    others = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    best = problem.best @ problem.minima
    slope = best - problem.target
    np.testing.assert_allclose(np.linalg.norm(slope), 1.0, rtol=1e-5)
    np.testing.assert_allclose((problem.minima - best) @ slope, 0.0, atol=1e-5)
    assert problem.best.min() >= quadratics.LEAST_SHARE
    np.testing.assert_allclose(problem.best.sum(), 1.0, rtol=1e-6)
    losses = np.square(others @ problem.minima - problem.target).sum(-1) / 2
    np.testing.assert_allclose(quadratics.excess(problem, others), losses - 0.5, atol=1e-4)
    np.testing.assert_allclose(quadratics.excess_of(problem, others @ problem.minima), losses - 0.5, atol=1e-4)
    slopes = problem.minima @ (problem.minima - problem.target).T
    np.testing.assert_allclose(quadratics.largest_slope(problem), abs(slopes - slopes.mean(0)).max(), rtol=1e-5)
    inside = problem.minima @ (others @ problem.minima - problem.target).T
    assert abs(inside - inside.mean(0)).max() <= quadratics.largest_slope(problem)


T, ROUNDS, RATE = 5, 6, 0.3
RULE = rules.mirror_descent(0.1, adaptive=False)


@pytest.fixture(scope="module")
def loop(problem):
    """``loop(sigma)``: the last state of mixing.fit, and the noise ``[step, D, d]`` that its steps saw."""
    tx, quadratic = optax.sgd(RATE), quadratics.loss_of(problem)

    def loss(x, batch):
        minimum, noise = batch
        return quadratic(x, minimum) + noise @ x

    def val_loss(x, target):
        return jnp.sum(jnp.square(x - target)) / 2

    @jax.jit
    def run(sigma):
        def draw(key):
            return problem.minima, sigma * jax.random.normal(key, (3, 4))

        state = mixing.init_state(jnp.zeros(4), tx, jnp.ones(3), RULE)
        last, _ = mixing.fit(
            loss, val_loss, tx, RULE, draw, lambda key: problem.target, state, KEY, num_steps=T * ROUNDS, T=T
        )
        step_key = jax.random.split(KEY, 4)[0]  # as mixing.fit makes a step's key
        return last, jax.vmap(lambda i: draw(jax.random.fold_in(step_key, i))[1])(jnp.arange(T * ROUNDS))

    return run


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_runs_are_those_of_the_loop(problem, loop, sigma):
    last, drawn = loop(sigma)
    shrink = 1 - RATE * problem.curvatures
    powers = shrink ** jnp.arange(T - 1, -1, -1)[:, None]
    gathered = (powers[:, None] * drawn.reshape(ROUNDS, T, 3, 4)).sum(1)
    noise = gathered / quadratics.noise_scale(shrink, T) if sigma else None
    found = quadratics.run(problem, RULE, RATE, T, ROUNDS, noise)
    np.testing.assert_allclose(found.last_weights, last.rule_state.weights, rtol=1e-4)
    np.testing.assert_allclose(found.mean_weights, last.mean_weights, rtol=1e-4)
    np.testing.assert_allclose(found.params, last.params, rtol=1e-4, atol=1e-4)


def test_the_noise_of_a_round_has_the_variance_of_its_steps():
    shrink, T = np.array([0.9, 0.3]), 7
    np.testing.assert_allclose(
        quadratics.noise_scale(shrink, T) ** 2, sum(shrink ** (2 * t) for t in range(T)), rtol=1e-5
    )
