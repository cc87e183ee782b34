"""Modes that differentiate the steps, against one another, finite differences and closed forms; their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mixjax.hypergrad import Hypergradient, counterfactual, hypergrad, unroll
from tests.hypergrad.problems import (
    CENTERS,
    CURVATURES,
    OPTIMIZERS,
    TARGET,
    WEIGHTS,
    at_the_optimum,
    difference,
    distance,
    loss,
    problem,
    quadratic,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reverse_forward_and_finite_differences_agree(name):
    optimizer = OPTIMIZERS[name]()
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    # a few steps first, so that the optimizer's state is not zero
    params, state, _ = unroll(loss, optimizer)(WEIGHTS, params, state, problem(1)[1])

    @jax.jit
    def outcome(weights):
        return loss(unroll(loss, optimizer)(weights, params, state, batches)[0], val_batch)

    results = {
        mode: jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(WEIGHTS, params, state, batches, val_batch)
        for mode in ("reverse", "forward")
    }
    expected = difference(outcome, WEIGHTS)
    assert np.abs(expected).max() > 1e-3
    for result in results.values():
        np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(result.val_loss, outcome(WEIGHTS), rtol=1e-12)
    np.testing.assert_allclose(results["reverse"].hypergrads, results["forward"].hypergrads, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("length", [2, 50])
def test_segments_change_nothing(length):
    optimizer = optax.adam(0.05)
    params, batches, val_batch = problem()
    inputs = WEIGHTS, params, optimizer.init(params), batches, val_batch
    a = jax.jit(hypergrad(loss, loss, optimizer))(*inputs)
    b = jax.jit(hypergrad(loss, loss, optimizer, checkpoint_every=length))(*inputs)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14)


def test_long_horizons_take_segments_of_their_own():
    optimizer = optax.sgd(0.05, momentum=0.5)
    params, batches, val_batch = problem(num_steps=67)
    inputs = WEIGHTS, params, optimizer.init(params), batches, val_batch
    a, b = (jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(*inputs) for mode in ("reverse", "forward"))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-8)


@pytest.mark.parametrize("num_steps", [1, 5, 30])
def test_at_the_inner_optimum_t_steps_are_t_terms_of_neumann(num_steps):
    g = at_the_optimum(num_steps, "reverse")
    optimum = WEIGHTS @ CENTERS
    gradients = CURVATURES * (optimum - CENTERS)  # [D, d]
    response = (1 - (1 - CURVATURES) ** num_steps) / CURVATURES
    np.testing.assert_allclose(g, -gradients @ (response * (optimum - TARGET)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(WEIGHTS @ g, 0.0, atol=1e-12)
    neumann = at_the_optimum(1, "implicit", neumann_step=1.0, max_iterations=num_steps, tolerance=0.0)
    np.testing.assert_allclose(neumann, g, rtol=1e-9, atol=1e-12)


def test_one_step_of_sgd_is_alignment_after_the_step():
    optimizer = optax.sgd(0.1)
    params, batches, val_batch = problem(num_steps=1)
    result = hypergrad(loss, loss, optimizer)(WEIGHTS, params, optimizer.init(params), batches, val_batch)
    slope = jax.grad(loss)(result.params, val_batch)
    before = jax.vmap(jax.grad(loss), (None, 0))(params, jax.tree.map(lambda x: x[0], batches))
    expected = -0.1 * jax.vmap(lambda g: optax.tree.vdot(g, slope))(before)
    np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-9)


def test_forward_takes_a_traced_number_of_steps():
    optimizer = optax.adam(0.05)
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    forward, traces = hypergrad(loss, loss, optimizer, mode="forward"), []

    # Counted here: JAX's own count forgets functions where a process has compiled many others.
    @jax.jit
    def dynamic(*arguments):
        traces.append(arguments)
        return forward(*arguments)

    for num_steps in (1, 4):
        a = dynamic(WEIGHTS, params, state, batches, val_batch, num_steps)
        first = jax.tree.map(lambda x, n=num_steps: x[:n], batches)
        b = jax.jit(hypergrad(loss, loss, optimizer))(WEIGHTS, params, state, first, val_batch)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-13)
    assert len(traces) == 1


def test_a_hundred_domains():
    optimizer, rng = optax.sgd(0.5), np.random.default_rng(0)
    weights, x, centers = np.full(100, 0.01), jnp.zeros(4), jnp.asarray(rng.normal(size=(3, 100, 4)))
    inputs = weights, x, optimizer.init(x), centers, jnp.asarray(TARGET)
    a, b = (jax.jit(hypergrad(quadratic, distance, optimizer, mode=mode))(*inputs) for mode in ("reverse", "forward"))
    np.testing.assert_allclose(a.hypergrads, b.hypergrads, rtol=1e-9, atol=1e-12)


def test_a_domain_of_weight_zero_has_a_hypergradient_too():
    weights, (params, batches, val_batch), optimizer = np.array([0.0, 0.6, 0.4]), problem(), optax.sgd(0.3)
    inputs = params, optimizer.init(params), batches
    result = jax.jit(hypergrad(loss, loss, optimizer))(weights, *inputs, val_batch)
    outcome = jax.jit(lambda w: loss(unroll(loss, optimizer)(w, *inputs)[0], val_batch))
    expected = difference(outcome, weights)
    np.testing.assert_allclose(result.hypergrads, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_adam_where_a_gradient_is_exactly_zero(mode):
    params, (x, y), (val_x, val_y) = problem()
    x, val_x = x.at[..., 0].set(0.0), val_x * np.array([0, 1, 1, 1])  # a dead pixel
    params["w"] = params["w"].at[0].set(0.0)

    for eps_root in (0.0, 1e-12):
        optimizer = optax.adam(0.05, eps_root=eps_root)
        inputs = params, optimizer.init(params), (x, y)
        result = jax.jit(hypergrad(loss, loss, optimizer, mode=mode))(WEIGHTS, *inputs, (val_x, val_y))
        outcome = jax.jit(lambda w, a=inputs, tx=optimizer: loss(unroll(loss, tx)(w, *a)[0], (val_x, val_y)))
        np.testing.assert_allclose(result.hypergrads, difference(outcome, WEIGHTS, 1e-7), rtol=1e-3)


def test_a_loss_that_is_nan_says_so_in_the_hypergradient():
    optimizer = optax.sgd(0.1)
    params, (x, y), val_batch = problem()
    result = hypergrad(loss, loss, optimizer)(
        WEIGHTS, params, optimizer.init(params), (x.at[2, 1].set(np.nan), y), val_batch
    )
    assert np.isnan(result.hypergrads).any() and np.isnan(result.losses[1])


def test_counterfactual_errs_by_the_second_order():
    optimizer = optax.sgd(0.3)
    params, batches, val_batch = problem()
    state = optimizer.init(params)
    result = hypergrad(loss, loss, optimizer)(WEIGHTS, params, state, batches, val_batch)
    run = jax.jit(lambda w: loss(unroll(loss, optimizer)(w, params, state, batches)[0], val_batch))
    direction = np.array([0.3, -0.2, -0.1])
    errors = []
    for size in (0.4, 0.2, 0.1):
        other = WEIGHTS + size * direction
        errors.append(float(counterfactual(result, WEIGHTS, other) - run(other)))
        assert abs(errors[-1]) < 0.3 * abs(run(other) - run(WEIGHTS))
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, rtol=0.2)
    np.testing.assert_allclose(errors[1] / errors[2], 4.0, rtol=0.1)


def temporary(num_steps, size=2000, traced=False, **options):
    """Bytes of the compiled program beside its arguments and results."""
    optimizer = optax.sgd(0.1)

    def wide(x, center):
        return jnp.mean(jnp.tanh(x - center) ** 2)

    def draw(key):
        return jax.random.normal(key, (4, 1), jnp.float32)

    x = jnp.zeros(size, jnp.float32)
    gradient = jax.jit(hypergrad(wide, wide, optimizer, draw=draw, **options))
    keys = jax.random.split(jax.random.key(0), num_steps)
    last = [jnp.int32(num_steps)] if traced else []
    compiled = gradient.lower(jnp.full(4, 0.25, jnp.float32), x, optimizer.init(x), keys, x[:1], *last).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_beyond_the_state_is_constant_or_grows_with_the_root_of_t():
    assert temporary(1024, mode="forward") <= 1.1 * temporary(2, mode="forward")
    assert temporary(1024, mode="forward", traced=True) <= 1.1 * temporary(1, mode="forward", traced=True)
    kept = temporary(1024, checkpoint_every=1) - temporary(1, checkpoint_every=1)
    assert 0.9 < kept / (1023 * 2000 * 4) < 1.5
    assert temporary(1024) < 0.12 * temporary(1024, checkpoint_every=1)  # 2 * 32 states of 1024, and the rest


def test_counterfactual_wants_weights_of_the_hypergradients_shape():
    result = Hypergradient(jnp.zeros(3), None, None, None, jnp.zeros(()))
    for weights, other in ((np.ones(2), np.ones(3)), (np.ones(3), np.ones((4, 2)))):
        with pytest.raises(ValueError, match="weights must be"):
            counterfactual(result, weights, other)
