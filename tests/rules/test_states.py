"""Tests that every rule's state stands in one file and begins as all states do."""

import inspect

import jax.numpy as jnp
import pytest

from mixjax import rules
from mixjax.rules import states
from mixjax.types import WeightState

PRIOR = jnp.array([0.5, 0.5])
STATES = [getattr(states, name) for name in states.__all__]


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_a_named_tuple_that_begins_with_weights_and_prior(state):
    assert issubclass(state, tuple) and state._fields[:2] == WeightState._fields
    assert "Attributes:" in inspect.getdoc(state)


def test_every_state_of_a_rule_is_listed():
    defined = {name for name, value in vars(states).items() if inspect.isclass(value) and hasattr(value, "_fields")}
    assert defined == set(states.__all__)
    made = {name: factory(jnp.ones(2)) if name == "gls" else factory() for name, factory in rules.RULES.items()}
    assert {type(rule.init(PRIOR)) for rule in made.values()} <= {WeightState, *STATES}


def test_rules_that_remember_the_same_share_a_state():
    def state(rule):
        return type(rule.init(PRIOR))

    assert state(rules.erma()) is state(rules.doge()) is state(rules.doremi()) is states.LogWeightState
    assert state(rules.fgls()) is state(rules.dro()) is states.LastLossState
    assert state(rules.variance_aware()) is state(rules.gradient_norm()) is states.ScoreState
