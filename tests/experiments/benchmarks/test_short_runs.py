"""Tests the count of a step's operations."""

import jax
import jax.numpy as jnp

from experiments.benchmarks import short_runs
from mixjax import rules
from mixjax.sweeps import costs

LINEAR, MLP = short_runs.problems(quick=True)


def test_operations_of_a_steps_products():
    for problem in (LINEAR, MLP):
        params, rows = problem.start(jax.random.key(0))
        carry = params, rules.erma().init(jnp.ones(problem.domains))
        counted = costs.flops(problem.step, carry, rows[0], jnp.float32(0), short_runs.data(problem))
        assert 0 < counted - problem.product_flops < 40 * problem.rows + 40 * problem.rows * sum(problem.widths[1:])
    assert MLP.product_flops == 2 * 16 * (2 * 8 * 16 + 3 * 16 * 4)
