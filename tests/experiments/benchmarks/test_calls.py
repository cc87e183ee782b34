"""Tests that the steps whose calls are timed train, each with the rule that it names."""

import jax
import numpy as np

from experiments.benchmarks import calls


def test_steps_train_with_their_rule():
    for name, rule in calls.RULES.items():
        step, state = calls.step_of(rule)
        params, _, rule_state = jax.jit(step)(state)
        assert np.abs(params).max() > 0
        assert (rule_state == ()) == (name == "plain")
        if name == "`rules.erma`":
            assert not np.allclose(rule_state.weights, rule_state.prior)
