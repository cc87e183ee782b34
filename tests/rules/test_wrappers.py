"""Tests when a wrapped rule moves, and how its weights are mixed and pulled."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax import rules
from mixjax.types import WeightRule, WeightState
from tests.laws.reference import paper000

HALF = [0.5, 0.5]
COUNTS = np.array([9, 9])


def toward(first):
    """Signals for which FGLS gives the weight ``first`` to domain 0."""
    return {"counts": COUNTS, "losses": np.float32([1.0 - first, first])}


def history(rule, shares):
    state, weights = rule.init(HALF), []
    for first in shares:
        state = rule.update(state, **toward(first))
        weights.append(float(state.weights[0]))
    return weights


@pytest.mark.parametrize(
    ("k", "start", "open_steps"),
    [(1, 0, range(12)), (3, 0, [2, 5, 8, 11]), (3, 5, [5, 8, 11]), (3, 6, [8, 11]), (1, 9, [9, 10, 11]), (12, 0, [11])],
)
def test_every_moves_where_t_mod_k_is_k_minus_1(k, start, open_steps):
    shares = np.linspace(0.1, 0.9, 12)
    weights, expected = history(rules.every(rules.fgls(), k, start), shares), 0.5
    for t in range(12):
        expected = shares[t] if t in open_steps else expected
        np.testing.assert_allclose(weights[t], expected, rtol=1e-5)


def test_every_counts_only_updates_with_news():
    rule = rules.every(rules.fgls(), 2)
    state = rule.init(HALF)
    for _ in range(3):
        state = rule.update(state, **toward(0.9) | {"counts": np.zeros(2)})
    assert state.step == 0
    state = rule.update(state, **toward(0.9))
    np.testing.assert_allclose(state.weights, HALF)
    np.testing.assert_allclose(rule.update(state, **toward(0.9)).weights, [0.9, 0.1], rtol=1e-5)


def test_every_hides_the_steps_between_from_the_rule():
    shares = [0.1, 0.3, 0.2, 0.6]
    thinned = history(rules.every(rules.one_shot_fgls(0.5), 2), shares)
    np.testing.assert_allclose(thinned[1::2], history(rules.one_shot_fgls(0.5), shares[1::2]), rtol=1e-6)


def test_every_with_an_interval_per_run():
    signals = jax.tree.map(lambda *x: np.stack(x), *(toward(s) for s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))

    @jax.vmap
    def run(k):
        rule = rules.every(rules.fgls(), k)

        def step(state, signal):
            state = rule.update(state, **signal)
            return state, state.weights[0]

        return jax.lax.scan(step, rule.init(HALF), signals)[1]

    expected = [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.2, 0.2, 0.4, 0.4, 0.6], [0.5, 0.5, 0.3, 0.3, 0.3, 0.6]]
    np.testing.assert_allclose(run(jnp.array([1, 2, 3])), expected, rtol=1e-5)


def test_freeze_after_by_hand():
    shares = [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(history(rules.freeze_after(rules.fgls(), 0), shares), [0.5] * 4)
    np.testing.assert_allclose(history(rules.freeze_after(rules.fgls(), 2), shares), [0.1, 0.2, 0.2, 0.2], rtol=1e-5)
    rule = rules.freeze_after(rules.fgls(), 1)  # a step without news is not one of them
    state = rule.update(rule.init(HALF), **toward(0.9) | {"counts": np.zeros(2)})
    np.testing.assert_allclose(rule.update(state, **toward(0.2)).weights, [0.2, 0.8], rtol=1e-5)


def test_freeze_after_one_is_two_stage_fgls():
    rng = np.random.default_rng(0)
    domain = np.repeat([0, 1], [30, 60])
    x = rng.normal(size=(90, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=90) * np.array([0.2, 4.0])[domain]
    prior = np.bincount(domain) / 90

    def fit(c):  # weighted least squares: each example has weight c_d / n_d
        root = np.sqrt(np.asarray(c, np.float64)[domain] / np.bincount(domain)[domain])[:, None]
        return np.linalg.lstsq(x * root, y * root[:, 0], rcond=None)[0]

    def mean_losses(theta):
        return paper000.eq10(x, y, theta, domain)[0]

    rule = rules.freeze_after(rules.fgls(), 1)
    state = rule.init(prior)
    ols = fit(state.weights)
    np.testing.assert_allclose(ols, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-6)
    state = rule.update(state, counts=np.bincount(domain), losses=mean_losses(ols))
    second = fit(state.weights)
    _, w = paper000.eq10(x, y, ols, domain)
    np.testing.assert_allclose(second, fit(paper000.loss_weights(prior, w)), rtol=1e-5)
    frozen = rule.update(state, counts=np.bincount(domain), losses=mean_losses(second))
    np.testing.assert_array_equal(frozen.weights, state.weights)
    iterated = rules.fgls().update(state.inner, counts=np.bincount(domain), losses=mean_losses(second))
    assert np.abs(iterated.weights - state.weights).max() > 1e-5


def test_smooth_is_an_exponential_average():
    shares, expected, average = [0.1, 0.2, 0.9, 0.3], [], 0.5
    for first in shares:
        average = 0.75 * average + 0.25 * first
        expected.append(average)
    np.testing.assert_allclose(history(rules.smooth(rules.fgls(), 0.75), shares), expected, rtol=1e-5)
    np.testing.assert_allclose(history(rules.smooth(rules.fgls(), 0.0), shares), shares, rtol=1e-5)
    np.testing.assert_allclose(history(rules.smooth(rules.fgls(), 1.0), shares), [0.5] * 4, rtol=1e-6)


def test_smooth_does_not_touch_the_wrapped_state():
    rule = rules.smooth(rules.one_shot_fgls(0.5), 0.9)
    state, plain = rule.init(HALF), rules.one_shot_fgls(0.5).init(HALF)
    for first in (0.1, 0.7):
        state = rule.update(state, **toward(first))
        plain = rules.one_shot_fgls(0.5).update(plain, **toward(first))
    chex.assert_trees_all_close(state.inner, plain)


def test_floor_mixes_with_the_prior():
    rule = rules.floor(rules.fgls(), 0.25)
    state = rule.update(rule.init([0.2, 0.8]), counts=COUNTS, losses=np.float32([1.0, 1e-6]))
    inner = paper000.loss_weights([0.2, 0.8], [1.0, 1e6])
    np.testing.assert_allclose(state.weights, 0.75 * inner + 0.25 * np.array([0.2, 0.8]), rtol=1e-5)
    assert state.weights[0] >= 0.25 * 0.2
    np.testing.assert_allclose(history(rules.floor(rules.fgls(), 1.0), [0.1, 0.9]), [0.5, 0.5], rtol=1e-6)


def test_floor_applies_from_the_start():
    np.testing.assert_allclose(rules.floor(rules.fixed([1.0, 0.0]), 0.5).init(HALF).weights, [0.75, 0.25], rtol=1e-6)


def test_wrappers_nest():
    rule = rules.floor(rules.smooth(rules.every(rules.fgls(), 2), 0.5), 0.1)
    # every: .5 .9 .9 .3; smooth: .5 .7 .8 .55; floor: .9 x + .05
    np.testing.assert_allclose(history(rule, [0.1, 0.9, 0.2, 0.3]), [0.5, 0.68, 0.77, 0.545], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: rules.every(rules.fgls(), 0), "k"),
        (lambda: rules.every(rules.fgls(), 2, -1), "start"),
        (lambda: rules.freeze_after(rules.fgls(), -1), "k"),
        (lambda: rules.smooth(rules.fgls(), 1.5), "decay"),
        (lambda: rules.smooth(rules.fgls(), -0.5), "decay"),
        (lambda: rules.floor(rules.fgls(), 1.01), "fraction"),
        (lambda: rules.floor(rules.fgls(), np.nan), "fraction"),
        (lambda: rules.kl_to_prior(rules.mirror_descent(), -1.0), "strength"),
    ],
)
def test_hyperparameters_out_of_range_are_named(make, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()


def test_wrappers_take_rules_of_your_own():
    def init(prior):
        return WeightState(jnp.asarray(prior, jnp.float32), jnp.asarray(prior, jnp.float32))

    def update(state, *, counts, losses, **signals):
        return state._replace(weights=losses / losses.sum())

    own = WeightRule(init, update)
    np.testing.assert_allclose(history(rules.every(own, 2), [0.1, 0.2]), [0.5, 0.8], rtol=1e-6)
    np.testing.assert_allclose(history(rules.select([own, rules.fixed()], 0), [0.1]), [0.9], rtol=1e-6)
