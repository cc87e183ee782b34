"""Tests ERMA in Python floats against the rule."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import eager_runs
from mixjax import rules


def test_erma_in_floats_is_the_rule():
    rule = rules.erma(0.01)
    state = rule.init(jnp.ones(3))
    losses, variances, weights = [3.0, 1.0, 0.2], [2.0, 5.0, 0.1], [1 / 3] * 3
    for _ in range(4):
        state = rule.update(state, counts=jnp.ones(3), losses=jnp.array(losses), loss_vars=jnp.array(variances))
        weights = eager_runs.erma(weights, losses, variances, 0.01)
    np.testing.assert_allclose(weights, state.weights, rtol=1e-5)
