"""Tests that weights reach the plan at the same steps, however late they are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.live import Feedback, Plan


def plan_of(lag=4):
    return Plan([50, 40, 30], 8, [0.5, 0.3, 0.2], lag=lag)


def weights_after(step):
    return np.random.default_rng(step).dirichlet(np.ones(3)).astype(np.float32)


def undisturbed(num_steps):
    plan, batches = plan_of(), []
    for step in range(num_steps):
        batches.append(next(plan))
        plan.publish(step, weights_after(step))
    return batches


@pytest.mark.parametrize("delay", [0, 1, 3, None])
def test_batches_do_not_depend_on_the_delay(delay):
    plan = plan_of()
    feedback = Feedback(plan, delay)
    for want in undisturbed(20):
        batch = next(plan)
        np.testing.assert_array_equal(batch.rows, want.rows)
        np.testing.assert_array_equal(batch.weights, want.weights)
        feedback.send(batch.step, jnp.asarray(weights_after(batch.step)))


def test_the_state_is_that_before_the_next_step():
    plan = plan_of()
    feedback = Feedback(plan, 3)
    for step in range(10):
        next(plan)
        feedback.send(step, weights_after(step))
    state = feedback.get_state()
    assert state["step"] == 10
    other = plan_of()
    other.set_state(state)
    np.testing.assert_array_equal(next(other).rows, undisturbed(11)[10].rows)


def test_none_keeps_the_weights():
    plan = plan_of(lag=1)
    feedback = Feedback(plan)
    for step, weights in enumerate([[0.0, 0.0, 1.0], None, None]):
        next(plan)
        feedback.send(step, weights)
    np.testing.assert_array_equal(next(plan).weights, [0.0, 0.0, 1.0])


def test_a_rule_on_the_device_moves_the_mix():
    """The loop that a user writes: a jitted step, whose rule raises the domain of largest loss."""
    plan, rule = plan_of(), mixjax.rules.group_dro(0.5)
    feedback, state = Feedback(plan), rule.init(np.ones(3))
    update = jax.jit(lambda state, losses, counts: rule.update(state, counts=counts, losses=losses))
    shares = []
    for _ in range(60):
        batch = next(plan)
        state = update(state, jnp.array([1.0, 2.0, 1.0]), batch.counts)
        feedback.send(batch.step, state.weights)
        shares.append(batch.counts[1] / 8)
    assert np.mean(shares[:4]) < 0.5 and np.mean(shares[-10:]) > 0.9


@pytest.mark.parametrize("delay", [-1, 4, 1.5])
def test_a_delay_out_of_range_is_named(delay):
    with pytest.raises(ValueError, match="delay must be an integer from 0 to lag - 1 = 3, got"):
        Feedback(plan_of(), delay)


def test_weights_that_are_not_finite_are_an_error_of_their_step():
    feedback = Feedback(plan_of(), 0)
    with pytest.raises(ValueError, match="weights must be finite"):
        feedback.send(0, jnp.array([np.nan, 1.0, 1.0]))


def test_weights_on_their_way_are_dropped_where_the_plan_is_set_back():
    plan = plan_of()
    feedback = Feedback(plan, 2)
    for step in range(4):
        next(plan)
        feedback.send(step, None)
    state = feedback.get_state()
    for step in range(4, 8):
        next(plan)
        feedback.send(step, None)
    plan.set_state(state)
    for step in range(4, 8):
        assert next(plan).step == step
        feedback.send(step, None)
    assert feedback.get_state()["step"] == 8
