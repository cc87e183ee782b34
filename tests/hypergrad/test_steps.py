"""Plain steps, and the pieces that derivatives of steps are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixjax.hypergrad import steps, unroll
from tests.hypergrad.problems import WEIGHTS, D, T, loss, problem

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_plain_steps_are_an_ordinary_optax_loop():
    optimizer = optax.adam(0.05)
    params, batches, _ = problem()
    state, means = optimizer.init(params), np.zeros(D)
    end, _, losses = jax.jit(unroll(loss, optimizer))(WEIGHTS, params, state, batches)

    @jax.jit
    def step(params, state, batch):
        losses = jax.vmap(loss, (None, 0))(params, batch)
        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        grads = jax.tree.map(lambda g: jnp.tensordot(jnp.asarray(WEIGHTS), g, 1), grads)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, losses

    for t in range(T):
        params, state, now = step(params, state, jax.tree.map(lambda x, t=t: x[t], batches))
        means += now / T
    np.testing.assert_allclose(end["w"], params["w"], rtol=1e-10)
    np.testing.assert_allclose(losses, means, rtol=1e-10)


def test_slots_are_the_floats_of_the_optimizers_state_and_can_be_put_back():
    params, _, _ = problem()
    state = optax.adam(0.05).init(params)
    slots, rebuild = steps.float_leaves(state)
    assert len(slots) == 4  # two moments of two parameters; the counter is no slot
    other = rebuild([x + 1.0 for x in slots])
    assert int(other[0].count) == int(state[0].count)
    np.testing.assert_array_equal(other[0].mu["w"], state[0].mu["w"] + 1.0)


def test_a_step_to_differentiate_is_the_optimizers_step():
    params, _, _ = problem()
    optimizer, grads = optax.adam(0.05), jax.tree.map(jnp.ones_like, params)
    state = optimizer.init(params)
    new, push, inputs = steps.linear_step(optimizer, (params, state), grads)
    expected = steps.take_step(optimizer, (params, state), grads)
    jax.tree.map(np.testing.assert_array_equal, new, expected)
    slots, rebuild = steps.float_leaves(state)
    jax.tree.map(np.testing.assert_array_equal, inputs, (params, slots, grads))

    def moments(slots):
        return steps.float_leaves(steps.take_step(optimizer, (params, rebuild(slots)), grads)[1])[0]

    zeros, ones = (jax.tree.map(fill, inputs) for fill in (jnp.zeros_like, jnp.ones_like))
    _, tangent = push(zeros[0], ones[1], zeros[2])
    _, expected = jax.jvp(moments, (slots,), (ones[1],))
    jax.tree.map(np.testing.assert_array_equal, tangent, expected)


def test_the_weighted_gradient_is_the_sum_of_the_domains_gradients():
    params, batches, _ = problem()
    batch = jax.tree.map(lambda x: x[0], batches)
    grads, losses = steps.gradient_of(loss)(jnp.asarray(WEIGHTS), params, batch)
    each = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
    np.testing.assert_allclose(grads["w"], WEIGHTS @ np.asarray(each["w"]), rtol=1e-12)
    np.testing.assert_allclose(losses, jax.vmap(loss, (None, 0))(params, batch), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_validation_loss_has_no_hypergradient(value):
    assert np.isnan(steps.nan_unless_finite(jnp.ones(D), jnp.asarray(value))).all()
    assert steps.nan_unless_finite(jnp.ones(D), jnp.asarray(1.0)).tolist() == [1.0] * D


def test_integer_weights_become_floats_and_narrow_ones_stay_narrow():
    assert jnp.issubdtype(steps.as_floats([1, 0, 0]).dtype, jnp.floating)
    assert steps.as_floats(jnp.ones(3, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(("lengths", "match"), [((2, 3), "one leading axis"), ((0, 0), "at least one step")])
def test_batches_agree_about_the_number_of_steps(lengths, match):
    assert steps.length_of({"x": np.zeros((4, 2)), "y": np.zeros(4)}) == 4
    with pytest.raises(ValueError, match=match):
        steps.length_of([np.zeros(n) for n in lengths])
    with pytest.raises(ValueError, match="one leading axis"):
        steps.length_of(np.zeros(()))
