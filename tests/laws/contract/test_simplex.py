"""Tests that weights stay on the simplex, keep the zeros of the prior, and do not depend on the order of rows."""

import jax
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.laws.contract.cases import (
    CASES,
    PRIOR,
    PRIORS,
    ROWS,
    assert_bitwise,
    assert_simplex,
    change,
    draw_signals,
    every_case,
    extreme_signals,
    jitted,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@settings(derandomize=True, deadline=None, max_examples=50, database=None)
@given(PRIORS, st.lists(extreme_signals(), min_size=4, max_size=4))
def test_weights_stay_on_the_simplex_at_extremes(prior, steps):
    for name in CASES:
        note(name)
        state = jitted(name).init(prior)
        for signals in steps:
            state = jitted(name).update(state, **signals)
            assert_simplex(state.weights, prior)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@every_case
@pytest.mark.parametrize("losses", [0.0, 1e30])
@pytest.mark.parametrize("spread", [0.0, 3e38])
def test_weights_stay_on_the_simplex_over_many_extreme_updates(name, losses, spread):
    state, size = jitted(name).init(PRIOR), np.float32([1.0, 0.0, 0.5])
    signals = draw_signals(0) | {
        "losses": size * np.float32(losses),
        "loss_vars": np.roll(size, 1) * np.float32(spread),
        "grad_stds": size * np.float32(spread),
        "grad_norms": size * np.float32(spread),
        "hypergrads": np.roll(size, 1) * -np.float32(spread),
        "reference_losses": np.roll(size, 2) * np.float32(losses),
    }
    for _ in range(30):
        state = jitted(name).update(state, **signals)
    assert_simplex(state.weights)


@every_case
def test_one_domain_has_all_the_weight(name):
    rule = CASES[name].make(ROWS[:1])
    state = rule.init([3.0])
    for signals in (draw_signals(1, 1), change(draw_signals(2, 1), 0, losses=np.nan), draw_signals(3, 1)):
        np.testing.assert_allclose(state.weights, [1.0], rtol=1e-6)
        state = rule.update(state, **signals | {"loss_weights": np.float32([1.0])})
    np.testing.assert_allclose(state.weights, [1.0], rtol=1e-6)


@every_case
def test_zero_prior_stays_exactly_zero(name):
    prior = np.float32([0.7, 0.0, 0.3])
    state = jitted(name).init(prior)
    for seed in range(5):
        assert state.weights[1] == 0 and state.prior[1] == 0
        assert_simplex(state.weights, prior)
        signals = change(draw_signals(seed), 1, losses=1e-6, grad_stds=1e6, grad_norms=1e6, hypergrads=-1e6)
        state = jitted(name).update(state, **signals)


@every_case
def test_a_row_of_zero_prior_changes_nothing(name):
    prior = np.float32([0.7, 0.0, 0.3])
    a = b = jitted(name).init(prior)
    other = {"losses": 1e6, "loss_vars": np.nan, "grad_stds": 1e6, "grad_norms": 1e6, "hypergrads": 1e6, "counts": 0}
    for seed in range(3):
        signals = change(draw_signals(seed), 1, loss_weights=0.0)
        a = jitted(name).update(a, **signals)
        b = jitted(name).update(b, **change(signals, 1, **other))
    assert_bitwise(a.weights, b.weights)


@every_case
def test_permutation_equivariance(name):
    order = np.array([2, 0, 1])
    rule = jitted(name)
    permuted = jitted(name, tuple(order)) if CASES[name].by_row else rule
    a, b = rule.init(PRIOR), permuted.init(PRIOR[order])
    for seed in range(4):
        signals = draw_signals(seed) if seed != 2 else change(draw_signals(seed), 1, counts=0)
        a = rule.update(a, **signals)
        b = permuted.update(b, **{key: value[order] for key, value in signals.items()})
        np.testing.assert_allclose(b.weights, a.weights[order], rtol=1e-5, atol=1e-7)
