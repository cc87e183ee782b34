"""The tape: what would make norms wrong is refused by name, and shapes are checked."""

import functools

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
        (lambda t: t.embed(jnp.ones(3), jnp.ones((3, 2))), "ids must be integers, got float32"),
        (lambda t: t.embed(jnp.ones(3, int), jnp.ones(3)), r"embed takes ids \[B, ...\] and a table"),
        (lambda t: t.conv(jnp.ones((2, 3)), jnp.ones((3, 2))), r"conv takes x \[B, \*spatial, in\]"),
        (lambda t: t.conv(jnp.ones((2, 5, 3)), jnp.ones((3, 2, 4))), r"got \(2, 5, 3\) and \(3, 2, 4\)"),
        (
            lambda t: t.conv(jnp.ones((2, 5, 4)), jnp.ones((3, 2, 3)), feature_group_count=2),
            r"kernel \[\*window, in / 2, out\], out a multiple of 2",
        ),
        (lambda t: t.conv(jnp.ones((2, 5, 3)), jnp.ones((3, 3, 4)), jnp.ones(3)), r"a bias of shape \(4,\)"),
        (lambda t: t.conv(jnp.ones((2, 5, 3)), jnp.ones((3, 3, 4)), strides=(1, 2)), "strides must have one entry"),
        (lambda t: t.conv(jnp.ones((2, 5, 3)), jnp.ones((3, 3, 4)), padding="FULL"), "padding must be SAME"),
        (lambda t: t.attend(jnp.ones((2, 3)), jnp.ones((3, 2))), "attend takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(1)), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones((2, 3))), "scale takes x"),
        (lambda t: t.scale(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(2)), "scale takes x"),
        (lambda t: t.add(jnp.ones((2, 3)), jnp.ones(2)), "add takes x"),
    ],
)
def test_shapes_on_the_tape(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(Tape())


def stepped(t, p, x):
    return jax.lax.scan(lambda h, _: (t.dense(h, p["kernel"]), None), x, None, length=2)[0]


WITHIN = {
    "jit": lambda t, p, x: jax.jit(lambda x: t.dense(x, p["kernel"], p["bias"]))(x),
    "checkpoint": lambda t, p, x: jax.checkpoint(lambda x: t.dense(x, p["kernel"], p["bias"]))(x),
    "cond": lambda t, p, x: jax.lax.cond(x[0, 0] > 0, lambda x: t.dense(x, p["kernel"]), lambda x: x, x),
    "vmap": lambda t, p, x: jax.vmap(lambda x: t.dense(x[None], p["kernel"])[0])(x),
    "scan": stepped,
    "scan, embed": lambda t, p, x: jax.lax.map(lambda i: t.embed(i, p["kernel"]), jnp.zeros((2, B), int))[0],
    "grad, scale": lambda t, p, x: x + jax.grad(lambda x: t.scale(x, p["bias"]).sum())(x),
    "grad, add": lambda t, p, x: jax.jvp(lambda x: t.add(x, p["bias"]), (x,), (x,))[0],
    "jit, attend": lambda t, p, x: jax.jit(lambda x: t.attend(x, p["kernel"]))(x),
    "scan, conv": lambda t, p, x: jax.lax.map(lambda x: t.conv(x, p["kernel"]), x[None, :, None])[0, :, 0],
    "shard_map": lambda t, p, x: jax.shard_map(
        lambda x: t.dense(x, p["kernel"]),
        mesh=jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",)),
        in_specs=jax.sharding.PartitionSpec("d"),
        out_specs=jax.sharding.PartitionSpec("d"),
    )(x),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", WITHIN)
def test_an_operation_within_a_transformation_is_named(name, compiled):
    operation = name.split(", ")[1] if ", " in name else "dense"
    params = {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}
    if operation == "conv":
        params["kernel"] = jnp.ones((1, 3, 3))

    def losses_fn(tape, params, x):
        return WITHIN[name](tape, params, x).sum(axis=1)

    measure = functools.partial(value_grads_and_norms, losses_fn)
    with pytest.raises(ValueError, match=rf"tape.{operation} on params\[.*is called inside a jit, vmap, scan"):
        (jax.jit(measure) if compiled else measure)(params, jnp.ones((B, 3)))


def test_a_plain_tape_works_within_transformations():
    x, params = jnp.ones((B, 3)), {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
    for name in ("jit", "checkpoint", "vmap", "scan"):
        np.testing.assert_array_equal(WITHIN[name](Tape(), params, x), x)


def test_a_parameter_shows_its_type():
    seen = []

    def losses_fn(tape, params, x):
        seen.append((repr(params), params.shape, params.ndim, params.dtype))
        with pytest.raises(AttributeError):
            params.no_such_thing  # noqa: B018
        return tape.dense(x, params)[:, 0]

    jax.eval_shape(lambda p, x: value_grads_and_norms(losses_fn, p, x), jnp.ones((3, 1)), jnp.ones((B, 3)))
    assert seen[0] == ("Parameter(params, float32[3, 1])", (3, 1), 2, jnp.dtype("float32"))
