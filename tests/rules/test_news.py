"""Tests the count of updates in a row that had examples and nothing to use."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mixjax
from mixjax import rules
from mixjax.types import WeightRule, WeightState
from tests.laws.contract.cases import CASES, MEASURED, PRIOR, draw_signals, jitted, reading_case

pytestmark = pytest.mark.usefixtures("quick_compilation")

NOTHING = draw_signals(0) | dict.fromkeys(MEASURED, np.full(3, np.nan, np.float32))


@reading_case
def test_updates_without_a_row_seen_are_counted_until_one_is_seen(name):
    period, update = CASES[name].period, jitted(name).update
    state = jitted(name).init(PRIOR)
    for expected in (0, 1, 2):
        assert rules.unseen_updates(state) == expected
        for _ in range(period):
            state = update(state, **NOTHING)
    before = state
    state = update(state, **NOTHING | {"counts": np.zeros(3, np.int32)})  # no examples is no news
    assert rules.unseen_updates(state) == rules.unseen_updates(before) == 3
    one_row = {key: np.where([False, True, False], draw_signals(0)[key], NOTHING[key]) for key in NOTHING}
    for _ in range(period):
        state = update(state, **one_row)
    assert rules.unseen_updates(state) == 0


def test_the_count_is_an_int32_scalar_under_jit_and_the_largest_of_all():
    rule = rules.select([rules.fgls(), rules.erma(), rules.fixed()], 1)
    state = rule.init(PRIOR)
    for _ in range(2):
        state = rule.update(state, **NOTHING)
    count = jax.jit(rules.unseen_updates)(state)
    assert count.shape == () and count.dtype == jnp.int32 and count == 2
    assert state.states[0].unseen_updates == 0  # the rules that are not selected were fed nothing


def test_the_count_is_found_in_an_optax_chain_and_in_a_state_read_from_a_file():
    tx = optax.chain(optax.clip(1.0), mixjax.track(rules.smooth(rules.fgls(), 0.5), PRIOR), optax.adam(0.1))
    state = tx.init(jnp.ones(2))
    for _ in range(4):
        _, state = tx.update(jnp.ones(2), state, jnp.ones(2), **NOTHING)
    assert rules.unseen_updates(state) == 4
    assert rules.unseen_updates({"rule_state": state[1].rule_state.inner._asdict()}) == 4


def test_states_without_a_count_count_as_zero():
    own = WeightRule(lambda prior: WeightState(jnp.asarray(prior), jnp.asarray(prior)), lambda state, **signals: state)
    for rule in (own, rules.fixed(), rules.every(own, 1), rules.floor(rules.gls([1.0, 2.0, 3.0]), 0.1)):
        assert rules.unseen_updates(rule.update(rule.init(PRIOR), **NOTHING)) == 0
    assert rules.unseen_updates(optax.adam(0.1).init(jnp.ones(2))) == 0
