"""Data mixing on quadratics: closed forms, runs beside mixing.fit, laws on constructed results, tiny runs to the end."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.fewer_weight_updates import (
    quadratics,
    two_domains,
)
from mixjax import mixing, rules

FOLDER = Path(__file__).parents[2] / "configs" / "fewer_weight_updates"
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("T", "share", "left"),
    [(1, 0.863636, 3.765e-1), (2, 0.760504, 2.606e-1), (5, 0.5642, 9.872e-2), (20, 0.298542, 2.356e-3)],
)
def test_closed_forms_of_two_domains(T, share, left):
    """By hand: u = (1, -0.5), epsilon 0.1, so that p* = 0.25 and uniform weights leave 0.0625."""
    target = (1.0, -0.5)
    found = two_domains.last_share("mirror_descent", target, T, 0.1)
    np.testing.assert_allclose([found, two_domains.excess(found, target)], [share, left], rtol=1e-3)
    assert two_domains.best_share(target) == 0.25 and two_domains.excess(0.5, target) == 0.0625
    assert two_domains.last_share("implicit", target, T, 0.1) == 0.25
    np.testing.assert_allclose(two_domains.last_share("alignment", target, T, 0.1), 0.863636, rtol=1e-5)


def test_closed_forms_at_a_vertex_and_with_resets():
    shares = [two_domains.last_share("projected_gradient", (1.3, -1.5), T, 0.1) for T in (1, 20, 80)]
    assert shares == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(two_domains.last_share("reset", (1.0, -0.5), 1, 0.1), 0.9406, rtol=1e-4)


def test_horizons_of_two_domains_are_checked():
    with pytest.raises(ValueError, match="horizons must begin with 1"):
        two_domains.TwoDomains(horizons=(2, 4))
    with pytest.raises(ValueError, match="leave 100 rounds in 700 steps"):
        two_domains.TwoDomains(num_steps=700, horizons=(1, 8))


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


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_runs_are_those_of_the_loop(problem, sigma):
    """The formula for a round beside mixing.fit on the same noise."""
    T, rounds, rate, tx = 5, 6, 0.3, optax.sgd(0.3)
    rule, quadratic = rules.mirror_descent(0.1, adaptive=False), quadratics.loss_of(problem)

    def draw(key):
        return problem.minima, sigma * jax.random.normal(key, (3, 4))

    def loss(x, batch):
        minimum, noise = batch
        return quadratic(x, minimum) + noise @ x

    def val_loss(x, target):
        return jnp.sum(jnp.square(x - target)) / 2

    state = mixing.init_state(jnp.zeros(4), tx, jnp.ones(3), rule)
    last, _ = jax.jit(
        lambda: mixing.fit(
            loss, val_loss, tx, rule, draw, lambda key: problem.target, state, KEY, num_steps=T * rounds, T=T
        )
    )()
    step_key = jax.random.split(KEY, 3)[0]  # mixing.fit's key of a step
    drawn = jax.vmap(lambda i: draw(jax.random.fold_in(step_key, i))[1])(jnp.arange(T * rounds))
    shrink = 1 - rate * problem.curvatures
    powers = shrink ** jnp.arange(T - 1, -1, -1)[:, None]
    gathered = (powers[:, None] * drawn.reshape(rounds, T, 3, 4)).sum(1)
    noise = gathered / quadratics.noise_scale(shrink, T)
    found = quadratics.run(problem, rule, rate, T, rounds, noise if sigma else None)
    np.testing.assert_allclose(found.last_weights, last.rule_state.weights, rtol=1e-4)
    np.testing.assert_allclose(found.mean_weights, last.mean_weights, rtol=1e-4)
    np.testing.assert_allclose(found.params, last.params, rtol=1e-4, atol=1e-4)


def test_the_noise_of_a_round_has_the_variance_of_its_steps():
    shrink, T = np.array([0.9, 0.3]), 7
    np.testing.assert_allclose(
        quadratics.noise_scale(shrink, T) ** 2, sum(shrink ** (2 * t) for t in range(T)), rtol=1e-5
    )
