"""Tests that weights reach the plan at the same steps, however late they are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

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
    plan = plan_of()
    feedback = Feedback(plan, 2)
    for step in range(5):
        next(plan)
        bad = step == 2
        if step == 4:
            with pytest.raises(
                ValueError, match=r"after step 2 cannot be published: weights must be finite.*keep\(2\)"
            ):
                feedback.send(step, weights_after(step))
        else:
            feedback.send(step, jnp.array([np.nan, 1.0, 1.0]) if bad else weights_after(step))
    # What the error says goes on with the weights as they were.
    plan.keep(2)
    next(plan)
    feedback.send(5, weights_after(5))
    assert feedback.get_state()["step"] == 6


def test_another_step_than_the_next_is_an_error_when_it_is_sent():
    plan = plan_of()
    feedback = Feedback(plan, 3)
    feedback.send(0, None)
    for step in (0, 2, 7):
        with pytest.raises(ValueError, match=f"the next is step 1, got step {step}"):
            feedback.send(step, weights_after(step))
    feedback.send(1, weights_after(1))
    feedback.flush()
    assert plan.next_to_publish == 2


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ((jnp.ones(2),), ValueError, r"weights must be \[3\], one entry per domain, got shape \(2,\)"),
        ((np.ones((3, 1)),), ValueError, r"weights must be \[3\], one entry per domain, got shape \(3, 1\)"),
        ((np.ones(3), jnp.ones(4)), ValueError, r"loss_weights must be \[3\], one entry per domain, got shape \(4,\)"),
        (([[1.0], [1.0, 2.0]],), ValueError, r"weights must be \[3\], one number per domain, got"),
        ((None, np.ones(3)), TypeError, "loss_weights need weights beside them"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error_when_they_are_sent(arrays, kind, message):
    feedback = Feedback(plan_of(), 3)
    with pytest.raises(kind, match=message):
        feedback.send(0, *arrays)
    feedback.send(0, np.ones(3))


def test_weights_that_are_being_traced_are_named():
    feedback = Feedback(plan_of())
    with pytest.raises(TypeError, match="weights must have values, and is being traced: send them outside of jit"):
        jax.jit(lambda weights: feedback.send(0, weights))(jnp.ones(3))


def test_the_next_step_may_take_the_buffer_of_weights_that_were_sent():
    plan, want = plan_of(), plan_of()
    feedback = Feedback(plan, 3)
    move = jax.jit(lambda weights: weights * jnp.array([1.5, 1.0, 0.9]), donate_argnums=0)
    on_device, in_place, expected = jnp.ones(3), np.ones(3), np.ones(3, np.float32)
    for step in range(8):
        on_device = move(on_device)
        in_place *= 0.5
        feedback.send(step, on_device, in_place)
        expected = expected * np.array([1.5, 1.0, 0.9], np.float32)
        want.publish(step, expected, in_place)
    feedback.flush()
    assert plan.get_state()["changes"] == want.get_state()["changes"]


def test_sending_does_not_wait_for_the_step_that_computes_the_weights():
    @jax.jit
    def step(x, weights):
        x = jax.lax.fori_loop(0, 30, lambda _, x: jnp.tanh(x @ x), x)
        return x, weights * (1.0 + 0.0 * jnp.sum(x))

    was_running = {}
    for delay in (0, 1):
        plan, x, weights = plan_of(), jnp.full((300, 300), 1e-3), jnp.ones(3)
        feedback = Feedback(plan, delay)
        was_running[delay] = []
        for number in range(6):
            x, weights = jax.block_until_ready((x, weights))
            x, weights = step(x, weights)
            feedback.send(number, weights)
            was_running[delay].append(not weights.is_ready())
    # The first step is compiled, and the machine may be busy.
    assert any(was_running[1][1:]) and not any(was_running[0])


def test_weights_are_read_where_transfers_have_to_be_asked_for():
    plan = plan_of()
    feedback, weights = Feedback(plan, 1), jnp.array([1.0, 2.0, 1.0])
    with jax.transfer_guard("disallow"):
        for step in range(3):
            feedback.send(step, weights, weights)
        feedback.flush()
    assert plan.get_state()["changes"][-1]["weights"] == [0.25, 0.5, 0.25]


def test_arrays_on_several_devices_are_read():
    plan, mesh = plan_of(), jax.make_mesh((3,), ("d",), devices=jax.devices()[:3])
    feedback = Feedback(plan, 1)
    for spec in (PartitionSpec(), PartitionSpec("d")):
        weights = jax.device_put(jnp.array([1.0, 2.0, 1.0]), NamedSharding(mesh, spec))
        feedback.send(plan.next_to_publish, weights)
        feedback.flush()
        assert plan.get_state()["changes"][-1]["weights"] == [0.25, 0.5, 0.25]


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
