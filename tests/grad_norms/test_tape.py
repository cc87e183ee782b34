"""The tape: what would make norms wrong is refused by name, and shapes are checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms import Tape, value_grads_and_norms

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, T, D = 6, 7, 4

KERNEL = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
OUTSIDE = {
    "x @ p": lambda p, x: x @ p,
    "p @ x": lambda p, x: p @ x.T,
    "numpy @ p": lambda p, x: np.ones((2, 3)) @ p,
    "p ** 2": lambda p, x: p**2,
    "2 * p": lambda p, x: 2 * p,
    "-p": lambda p, x: -p,
    "p[0]": lambda p, x: p[0],
    "p.T": lambda p, x: p.T,
    "p.astype": lambda p, x: p.astype(jnp.bfloat16),
    "square": lambda p, x: jnp.square(p),
    "einsum": lambda p, x: jnp.einsum("bi,io->bo", x, p),
    "asarray": lambda p, x: jnp.asarray(p),
    "np.asarray": lambda p, x: np.asarray(p),
    "stop_gradient": lambda p, x: jax.lax.stop_gradient(p),
    "jit": lambda p, x: jax.jit(jnp.sin)(p),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_use_outside_the_tape_names_the_leaf(name):
    def losses_fn(tape, params, x):
        penalty = jnp.sum(OUTSIDE[name](params["kernel"], x))
        return tape.dense(x, params["kernel"], params["bias"]).sum(axis=1) + penalty

    with pytest.raises(ValueError, match=r"params\['kernel'\] is used outside the tape"):
        value_grads_and_norms(losses_fn, KERNEL, jnp.ones((B, 3)))


def test_a_leaf_that_is_not_used_is_named():
    with pytest.raises(ValueError, match=r"params\['bias'\] is not used on the tape"):
        value_grads_and_norms(lambda t, p, x: t.dense(x, p["kernel"]).sum(axis=1), KERNEL, jnp.ones((B, 3)))
    with pytest.raises(ValueError, match=r"params\['kernel'\] is not used"):  # the array itself, from outside
        value_grads_and_norms(lambda t, p, x: t.dense(x, KERNEL["kernel"], p["bias"])[:, 0], KERNEL, jnp.ones((B, 3)))


def test_a_leaf_used_elementwise_and_as_a_matrix_is_named():
    params = jnp.ones((3, 3))
    with pytest.raises(ValueError, match="params is used both elementwise and as a matrix"):
        value_grads_and_norms(lambda t, p, x: t.dense(t.add(x, p), p).sum(axis=(1, 2)), params, jnp.ones((B, 3, 3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda t, p, x: t.dense(x, p["kernel"], p["bias"]).sum(),
        lambda t, p, x: t.dense(x, p["kernel"], p["bias"]),
        lambda t, p, x: (t.dense(x, p["kernel"], p["bias"]) > 0)[:, 0],
        lambda t, p, x: (t.dense(x, p["kernel"], p["bias"])[:, 0], 1),
    ],
)
def test_losses_must_be_one_per_example(function):
    with pytest.raises(ValueError, match=r"losses_fn must return one loss per example, float \[B\]"):
        value_grads_and_norms(function, KERNEL, jnp.ones((B, 3)))


def test_the_first_axis_of_what_is_tapped_is_the_batch():
    def losses_fn(tape, params, x):
        positions = tape.embed(jnp.arange(T), params)
        return (x + positions).sum(axis=(1, 2))

    with pytest.raises(ValueError, match=rf"params acts on float32\[{T}, {D}\].*{B} examples"):
        value_grads_and_norms(losses_fn, jnp.ones((T, D)), jnp.ones((B, T, D)))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.dense(jnp.ones(3), jnp.ones((3, 2))), r"dense takes x \[B, ..., in\] and kernel"),
        (lambda t: t.dense(jnp.ones((2, 4)), jnp.ones((3, 2))), r"got \(2, 4\) and \(3, 2\)"),
        (lambda t: t.dense(jnp.ones((2, 3)), jnp.ones((3, 2, 2))), "dense takes x"),
        (lambda t: t.dense(jnp.ones((2, 3)), jnp.ones((3, 2)), jnp.ones(3)), r"a bias of shape \(2,\), got \(3,\)"),
        (lambda t: t.embed(jnp.ones(3), jnp.ones((3, 2))), "embed takes integer ids"),
        (lambda t: t.embed(jnp.ones(3, int), jnp.ones(3)), "embed takes integer ids"),
        (lambda t: t.attend(jnp.ones((2, 3)), jnp.ones((3, 2))), "attend takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(1)), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones((2, 3))), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(2)), "scale takes x"),
        (lambda t: t.add(jnp.ones((2, 3)), jnp.ones(2)), "add takes x"),
    ],
)
def test_shapes_on_the_tape(call, message):
    with pytest.raises(ValueError, match=message):
        call(Tape())


def test_a_parameter_shows_its_type():
    seen = []

    def losses_fn(tape, params, x):
        seen.append((repr(params), params.shape, params.ndim, params.dtype))
        with pytest.raises(AttributeError):
            params.no_such_thing  # noqa: B018
        return tape.dense(x, params)[:, 0]

    jax.eval_shape(lambda p, x: value_grads_and_norms(losses_fn, p, x), jnp.ones((3, 1)), jnp.ones((B, 3)))
    assert seen[0] == ("Parameter(params, float32[3, 1])", (3, 1), 2, jnp.dtype("float32"))
