"""Tests what becomes of rows that an update did not see, and of updates without news."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.types import SIGNALS
from tests.laws.contract.cases import (
    BASE,
    CASES,
    MEASURED,
    PRIOR,
    advance,
    assert_bitwise,
    assert_simplex,
    change,
    draw_signals,
    every_case,
    jitted,
    moved_state,
    reading_case,
    unseen,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "multiplicative"])
def test_multiplicative_rules_leave_unseen_weights_bitwise(name):
    state = moved_state(name)
    new = advance(name, state, unseen(draw_signals(2), 1))
    assert_bitwise(new.weights[1], state.weights[1])
    assert_simplex(new.weights)
    assert np.abs(new.weights - state.weights)[[0, 2]].min() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "closed"])
def test_closed_form_rules_reuse_the_last_seen_signal(name):
    case, first, second = CASES[name], draw_signals(1), draw_signals(2)
    state = moved_state(name)
    new = advance(name, state, unseen(second, 1))
    last = {signal: first[signal][1] for signal in ("losses", "grad_stds", "grad_norms")}
    again = advance(name, state, change(second, 1, **last))
    chex.assert_trees_all_close(case.view(new), case.view(again), rtol=1e-6)
    assert np.abs(case.view(new).weights - case.view(state).weights).max() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "closed"])
def test_closed_form_rules_keep_the_prior_share_of_a_row_never_seen(name):
    case, state = CASES[name], jitted(name).init(PRIOR)
    for seed in range(2):
        state = advance(name, state, unseen(draw_signals(seed), 1))
        np.testing.assert_allclose(case.view(state).weights[1], PRIOR[1], rtol=1e-6)
        assert_simplex(state.weights)
    assert np.abs(state.weights - PRIOR)[[0, 2]].min() > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "raw"])
def test_recursive_rules_keep_the_raw_weight_of_an_unseen_row(name):
    state = moved_state(name)
    new = advance(name, state, unseen(draw_signals(2), 1))
    assert_bitwise(new.log_w[1], state.log_w[1])
    assert np.abs(new.log_w - state.log_w)[[0, 2]].min() > 1e-3
    np.testing.assert_allclose(new.weights, jax.nn.softmax(jnp.log(PRIOR) + new.log_w), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].unseen == "constant"])
def test_constant_rules_never_move(name):
    state = jitted(name).init(PRIOR)
    assert_bitwise(moved_state(name), state)
    assert_bitwise(advance(name, state, unseen(draw_signals(2), 1)), state)


@every_case
def test_no_news_leaves_the_state_bitwise(name):
    for state in (jitted(name).init(PRIOR), moved_state(name)):
        signals = draw_signals(2) | {"counts": np.zeros(3, np.int32)}
        assert_bitwise(jitted(name).update(state, **signals), state)
        nothing = {key: np.full(3, np.nan, np.float32) for key in SIGNALS if key != "counts"}
        assert_bitwise(jitted(name).update(state, **signals | nothing), state)


@every_case
def test_rows_all_unseen_leave_the_weights(name):
    state = moved_state(name)
    signals = draw_signals(2) | {"loss_weights": draw_signals(1)["loss_weights"]}
    signals |= {key: np.full(3, np.nan, np.float32) for key in MEASURED}
    new, view = advance(name, state, signals), CASES[name].view
    np.testing.assert_allclose(view(new).weights, view(state).weights, rtol=1e-6)


@reading_case
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_signal_makes_the_row_unseen(name, value):
    state, second = moved_state(name), draw_signals(2)
    last = draw_signals(1)["loss_weights"][1]
    for signal in CASES[name].reads:
        kept = {"loss_weights": last} if signal == "loss_weights" else {}
        a = advance(name, state, change(second, 1, **{signal: value}))
        b = advance(name, state, change(second, 1, counts=0, **kept))
        if name.startswith("select") and signal not in BASE[name[7:-1]].reads:
            continue  # read by a rule that is not the selected one
        assert_bitwise(a, b)


@every_case
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_signal_the_rule_does_not_read_changes_nothing(name, value):
    state, second = moved_state(name), draw_signals(2)
    others = {signal: value for signal in SIGNALS if signal not in (*CASES[name].reads, "counts")}
    assert_bitwise(advance(name, state, change(second, 1, **others)), advance(name, state, second))
