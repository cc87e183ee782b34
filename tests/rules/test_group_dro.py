"""Group DRO against numbers computed by hand and Sagawa et al.'s algorithm 1 in float64.

Three tests are about what goes wrong in the authors' code: the adjustment is skipped unless all its entries are
positive, it is added in place to the loss that is reported, and a domain without examples counts as one of loss zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.rules import floor, group_dro
from tests.laws.reference import paper004

PRIOR = np.array([0.5, 0.3, 0.2])
COUNTS = np.array([8, 8, 8])


def test_by_hand():
    rule = group_dro(step_size=2.0)
    state = rule.init([0.5, 0.25, 0.25])
    state = rule.update(state, counts=COUNTS, losses=np.log([1.0, 2.0, 3.0]) / 2)  # .5, .5, .75
    np.testing.assert_allclose(state.weights, [2 / 7, 2 / 7, 3 / 7], rtol=1e-6)
    state = rule.update(state, counts=COUNTS, losses=np.log([3.0, 1.0, 1.0]) / 2)  # 6, 2, 3
    np.testing.assert_allclose(state.weights, [6 / 11, 2 / 11, 3 / 11], rtol=1e-6)
    np.testing.assert_allclose(np.exp(state.log_w), state.weights / state.prior, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_algorithm_1_over_20_steps_with_absent_rows(seed, decay):
    rng = np.random.default_rng(seed)
    adjustment = 2.0 / np.sqrt([100, 10, 5])
    rule = group_dro(0.2, adjustment=adjustment, decay=decay)
    state, update = rule.init(PRIOR), jax.jit(rule.update)
    c, average, seen = PRIOR.copy(), np.zeros(3), np.zeros(3, bool)
    for _ in range(20):
        losses, there = rng.uniform(0.0, 3.0, 3), rng.random(3) > 0.4
        state = update(state, counts=np.where(there, 8, 0), losses=np.where(there, losses, np.nan))
        rate = np.where(seen, 1.0 - decay, 1.0)
        average = np.where(there, (1 - rate) * average + rate * losses, average)
        seen |= there
        if there.any():
            moved = paper004.group_dro(c[there], average[there], 0.2, adjustment[there])
            c[there] = c[there].sum() * moved
        np.testing.assert_allclose(state.weights, c, rtol=3e-5)
        np.testing.assert_allclose(state.losses, average, rtol=3e-6, atol=1e-6)
    assert np.abs(c - PRIOR).max() > 0.05


def test_an_absent_domain_does_not_sink():
    rule = group_dro(0.5)
    state = rule.init(PRIOR)
    for _ in range(50):
        new = rule.update(state, counts=np.array([8, 0, 8]), losses=np.array([1.0, np.nan, 3.0]))
        assert new.weights[1] == state.weights[1]
        state = new
    np.testing.assert_allclose(state.weights[1], 0.3, rtol=1e-6)
    as_loss_zero = PRIOR.copy()
    for _ in range(50):
        as_loss_zero = paper004.group_dro(as_loss_zero, [1.0, 0.0, 3.0], 0.5)
    assert as_loss_zero[1] < 1e-20


def test_the_adjustment_counts_where_only_some_entries_are_positive():
    for adjustment in ([0.0, 0.0, 1.0], [-0.5, 0.0, 0.5]):
        rule = group_dro(1.0, adjustment=np.array(adjustment))
        state = rule.update(rule.init(PRIOR), counts=COUNTS, losses=np.ones(3))
        np.testing.assert_allclose(state.weights, paper004.group_dro(PRIOR, np.ones(3), 1.0, adjustment), rtol=1e-6)
        assert np.abs(state.weights - PRIOR).max() > 0.1


def test_the_adjustment_is_in_no_loss():
    rule, losses = group_dro(1.0, adjustment=np.array([3.0, 2.0, 1.0])), np.array([1.0, 2.0, 3.0])
    state = rule.update(rule.init(PRIOR), counts=COUNTS, losses=losses)
    np.testing.assert_array_equal(losses, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(state.losses, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(state.weights, PRIOR, rtol=1e-6)  # L + A is 4 everywhere


def test_a_scalar_adjustment_changes_nothing():
    losses = np.array([1.0, 2.0, 4.0])
    a, b = (group_dro(0.5, adjustment=value) for value in (0.0, 3.0))
    a, b = (rule.update(rule.init(PRIOR), counts=COUNTS, losses=losses) for rule in (a, b))
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-6)


def test_the_exponents_are_clipped_below_the_largest():
    rule = group_dro(1.0, max_log_step=np.log(2.0))
    state = rule.update(rule.init([0.5, 0.25, 0.25]), counts=COUNTS, losses=np.array([0.0, 99.5, 100.0]))
    expected = np.array([0.5 / 2, 0.25 * np.exp(-0.5), 0.25])
    np.testing.assert_allclose(state.weights, expected / expected.sum(), rtol=1e-5)
    high = rule.update(rule.init(PRIOR), counts=COUNTS, losses=np.array([1e30, 1e30, 0.0]))
    assert high.weights[2] < 0.2 and np.isfinite(high.weights).all()  # large losses still move the others apart


def test_a_weight_driven_to_nothing_can_come_back():
    rule = group_dro(1.0)
    state, update = rule.init([0.5, 0.5]), jax.jit(rule.update)
    for losses in ([0.0, 9.0], [9.0, 0.0]):
        for _ in range(40):
            state = update(state, counts=np.array([9, 9]), losses=np.array(losses))
        assert np.isfinite(state.log_w).all()
    assert state.weights[0] > 0.999


def test_the_floor_is_the_wrappers():
    rule = floor(group_dro(1.0), 0.1)
    state = rule.init(PRIOR)
    for _ in range(100):
        state = rule.update(state, counts=COUNTS, losses=np.array([5.0, 0.0, 0.0]))
    np.testing.assert_allclose(state.weights, 0.9 * np.array([1.0, 0.0, 0.0]) + 0.1 * PRIOR, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"step_size": -0.1}, r"step_size must be in \[0, inf\)"),
        ({"adjustment": np.inf}, "adjustment must be in"),
        ({"adjustment": [0.0, np.nan]}, "adjustment must be in"),
        ({"decay": 1.1}, r"decay must be in \[0, 1\]"),
        ({"max_log_step": 0.0}, "max_log_step must be positive"),
    ],
)
def test_bad_arguments_are_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        group_dro(**kwargs)


def test_the_adjustment_must_fit_the_prior():
    with pytest.raises(ValueError, match=r"adjustment must be a scalar or have shape \(3,\), got \(2,\)"):
        group_dro(adjustment=jnp.ones(2)).init(PRIOR)
