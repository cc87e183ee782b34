"""Tests that a state can be donated at once: every leaf has memory of its own, and no rule loses a constant by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.laws.contract.cases import CASES, ROWS, assert_bitwise, draw_signals, every_case

pytestmark = pytest.mark.usefixtures("quick_compilation")


def memory(tree):
    """The addresses of all leaves."""
    return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]


def assert_own_memory(tree):
    addresses = memory(tree)
    assert len(set(addresses)) == len(addresses), f"leaves that share a buffer in {jax.tree.structure(tree)}"


@every_case
def test_states_of_rules_can_be_donated(name):
    # The rule, its prior and its signals are jax.Arrays, of which a donated state may hold none.
    rule, prior = CASES[name].make(jnp.asarray(ROWS)), jnp.array([0.5, 0.3, 0.2])
    signals = jax.tree.map(jnp.asarray, draw_signals(0))
    step = jax.jit(rule.update, donate_argnums=0)
    fresh = rule.init(prior)
    assert_own_memory(fresh)
    state = fresh
    for _ in range(3):
        state = rule.update(state, **signals)
        assert_own_memory(state)
    expected = np.array(state.weights)
    for first in (fresh, rule.update(rule.init(prior), **signals)):
        state = first
        for _ in range(3):
            state = step(state, **signals)
            assert_own_memory(state)
    again = rule.init(prior)  # neither the prior nor what the rule closes over went with the donated states
    for _ in range(3):
        again = step(again, **signals)
    np.testing.assert_allclose(again.weights, expected, rtol=1e-5, atol=1e-6)
    assert not prior.is_deleted() and not any(value.is_deleted() for value in signals.values())


@every_case
def test_states_of_jitted_rules_can_be_donated(name):
    rule = CASES[name].make(ROWS)
    state = jax.jit(rule.init)(jnp.array([0.5, 0.3, 0.2]))
    assert_own_memory(state)
    kept = jax.tree.map(np.asarray, state)
    jax.jit(rule.update, donate_argnums=0)(state, **draw_signals(0))
    assert_bitwise(jax.jit(rule.init)(jnp.array([0.5, 0.3, 0.2])), kept)
