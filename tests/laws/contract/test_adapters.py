"""Tests the laws that tie the adapters together: weighted_loss, aggregate and track."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from tests.laws.contract.cases import CASES, PRIOR, assert_bitwise, draw_signals, jitted

pytestmark = pytest.mark.usefixtures("quick_compilation")


LOSS_RULES = [name for name in CASES if not CASES[name].sampling]
IDS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
X = np.random.default_rng(0).normal(size=(len(IDS), 2)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=len(IDS)).astype(np.float32)


def example_losses(theta):
    return jnp.square(X @ theta - Y)


@jax.jit
def domain_means(theta):
    """Each domain's mean gradient, and the signals of the batch."""
    per_example = jax.jacrev(example_losses)(theta)
    means = jnp.stack([per_example[np.flatnonzero(d == IDS)].mean(axis=0) for d in range(3)])
    return means, mixjax.signals.moments(example_losses(theta), IDS, 3).signals()


@pytest.mark.parametrize("name", LOSS_RULES)
def test_gradient_of_weighted_loss_equals_aggregate(name):
    rule = jitted(name)
    extra = {key: value for key, value in draw_signals(0).items() if key not in ("counts", "losses", "loss_vars")}
    tx = mixjax.aggregate(rule, PRIOR)

    def objective(theta, state):
        return mixjax.weighted_loss(rule, state, example_losses(theta), IDS, update=True, **extra)

    theta, state = jnp.array([0.3, -0.7]), rule.init(PRIOR)
    opt_state = tx.init(theta)
    for _ in range(3):
        grad, state = jax.grad(objective, has_aux=True)(theta, state)
        means, measured = domain_means(theta)
        combined, opt_state = tx.update(means, opt_state, theta, **measured, **extra)
        np.testing.assert_allclose(grad, combined, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(state, opt_state.rule_state, rtol=1e-5, atol=1e-6)
        assert CASES[name].cuts or (state.weights > 0).all()
        theta -= 0.1 * grad


@pytest.mark.parametrize("name", LOSS_RULES)
def test_track_holds_the_states_of_aggregate_and_applies_its_weights_one_step_later(name):
    rule, params = jitted(name), jnp.zeros(3)
    aggregate, track = mixjax.aggregate(rule, PRIOR), mixjax.track(rule, PRIOR)
    a, b = aggregate.init(params), track.init(params)
    applied = None
    for t in range(4):
        weights = mixjax.get_weights(b)  # what a user of track weights step t with
        np.testing.assert_allclose(weights, rule.init(PRIOR).weights if t == 0 else applied, rtol=1e-6)
        signals = draw_signals(t)
        applied, a = aggregate.update(jnp.eye(3), a, params, **signals)  # unit gradients show the weights
        passed, b = track.update(params + t, b, params, **signals)
        assert_bitwise(passed, params + t)
        chex.assert_trees_all_close(a.rule_state, b.rule_state, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(applied, mixjax.get_weights(a), rtol=1e-6)
