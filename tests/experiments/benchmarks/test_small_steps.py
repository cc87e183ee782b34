"""Tests that the parts of a step, put together, are the step."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import short_runs, small_steps

PROBLEM = short_runs.Problem("batches", 2, (5, 1), 20, 4, 6, 5e-4)


def trained(**parts):
    train = small_steps.batch_train(PROBLEM, **parts)
    return jax.jit(train)(jax.random.key(0), {"gamma1": 0.01}, short_runs.data(PROBLEM))


@pytest.mark.slow
def test_with_all_parts_it_trains_as_the_problem_does():
    whole = PROBLEM.train(jax.random.key(0), {"gamma1": 0.01}, short_runs.data(PROBLEM))
    found = trained(gathers=True, learns=True)
    np.testing.assert_allclose(found["loss_weights"], whole["loss_weights"], rtol=1e-6)
    for parts in ({"gathers": False, "learns": True}, {"gathers": True, "learns": False}):
        assert np.abs(trained(**parts)["norm"] - found["norm"]) > 1e-6


def test_bytes_of_a_gather():
    assert small_steps.gather_bytes(PROBLEM) == 2 * 4 * 8 * 5
