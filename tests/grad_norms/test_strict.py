"""Norms in JAX's strict modes, on meshes with Explicit axes, with donated and narrow arguments."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mixjax import grad_norms
from mixjax.grad_norms import value_grads_and_norms
from tests.grad_norms.models import MODELS, UNEVEN, B, normal

pytestmark = pytest.mark.usefixtures("quick_compilation")


def image_losses(tape, params, batch):
    x, y = batch
    x = jnp.tanh(tape.scale(tape.conv(x, params["kernel"], params["bias"], strides=2), params["gamma"], params["beta"]))
    return jnp.square(tape.dense(x.reshape(len(x), -1), params["out"]) - y).sum(axis=1)


IMAGE = {"kernel": (3, 3, 2, 4), **dict.fromkeys(["bias", "gamma", "beta"], (4,)), "out": (24, 2)}
IMAGE = {name: normal(i, *shape) for i, (name, shape) in enumerate(IMAGE.items())}
ALL = {**MODELS, "image": (image_losses, IMAGE, (normal(8, B, 5, 4, 2), normal(9, B, 2)))}


def arrays(name, dtype=None):
    def convert(x):
        return jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None)

    return jax.tree.map(convert, ALL[name][1:])


MODES = {
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("strict"),
    "nans": lambda: jax.debug_nans(True),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("mode", MODES)
def test_in_a_strict_mode(mode, name):
    """Ranks and dtypes are checked in a trace, NaNs in a run."""
    params, batch = arrays(name)
    run = functools.partial(value_grads_and_norms, ALL[name][0])
    with MODES[mode]():
        for weights in (None, jnp.asarray(UNEVEN)):
            if mode == "nans":
                chex.assert_tree_all_finite(jax.jit(run)(params, batch, weights=weights))
            else:
                jax.eval_shape(run, params, batch, weights=weights)


def test_half_precision_where_no_dtype_is_promoted():
    params, batch = arrays("mlp", jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.bfloat16, jnp.float32):
            run = functools.partial(value_grads_and_norms, ALL["mlp"][0])
            _, grads, norms = jax.eval_shape(run, params, batch, weights=jnp.asarray(UNEVEN, dtype))
    assert norms.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


def signals():
    ids = jnp.zeros(4, jnp.uint8)
    return (
        grad_norms.by_domain(jnp.ones(4), ids, 3),
        grad_norms.last_layer(jnp.ones((4, 3)), jnp.ones((4, 2)), intercept=True),
        grad_norms.last_layer(jnp.ones((4, 5, 3)), jnp.ones((4, 5, 2), jnp.bfloat16), intercept=True),
        grad_norms.linear(jnp.ones(4), jnp.ones((4, 2)), intercept=True),
        grad_norms.per_example(lambda p, x: jnp.sum(x * p), jnp.ones(3), jnp.ones((4, 3)), batch_size=2),
    )


@pytest.mark.parametrize("mode", MODES)
def test_functions_of_arrays_in_a_strict_mode(mode):
    expected = signals()
    with MODES[mode]():
        chex.assert_trees_all_equal(signals(), expected)


@pytest.mark.parametrize("name", ALL)
def test_on_a_mesh_with_explicit_axes(name):
    """Losses and norms are sharded as the batch is, gradients as the parameters."""
    losses_fn, (params, batch) = ALL[name][0], arrays(name)
    run = jax.jit(functools.partial(value_grads_and_norms, losses_fn))
    expected = run(params, batch, weights=UNEVEN)
    with jax.set_mesh(jax.make_mesh((2,), ("d",))):
        split = functools.partial(jax.device_put, device=P("d"))
        found = run(jax.device_put(params, P()), jax.tree.map(split, batch), weights=split(UNEVEN))
        assert jax.typeof(found[0]).sharding.spec == jax.typeof(found[2]).sharding.spec == P("d")
        assert all(jax.typeof(leaf).sharding.is_fully_replicated for leaf in jax.tree.leaves(found[1]))
        chex.assert_trees_all_close(jax.device_get(found), jax.device_get(expected), rtol=1e-4, atol=1e-5)
        by_domain = grad_norms.by_domain(found[2], split(jnp.arange(B) % 3), 3)
    np.testing.assert_allclose(by_domain, grad_norms.by_domain(expected[2], jnp.arange(B) % 3, 3), rtol=1e-4)


def test_parameters_may_be_sharded_over_explicit_axes():
    losses_fn, (params, batch) = ALL["mlp"][0], arrays("mlp")
    expected = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)
    with jax.set_mesh(jax.make_mesh((2,), ("d",))):
        specs = jax.tree.map(lambda leaf: P("d") if leaf.shape[0] % 2 == 0 else P(), params)
        params, batch = jax.device_put(params, specs), jax.device_put(batch, P("d"))
        found = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)
        assert jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec[:1], found[1]) == jax.tree.map(
            lambda leaf: jax.typeof(leaf).sharding.spec[:1], params
        )
    chex.assert_trees_all_close(jax.device_get(found), jax.device_get(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", ["image", "bag", "constant input"])
def test_norms_of_a_devices_own_batch(name, check_vma):
    """Norms of each device's examples and their mean gradient; the mean over devices is that of the whole batch."""

    def constant(tape, params, x):
        return jnp.tanh(x * tape.dense(jnp.ones((len(x), 2)), params)).sum(axis=1)

    if name == "constant input":
        losses_fn, params, batch = constant, jnp.ones((2, 3)), normal(0, B, 3)
    else:
        losses_fn, (params, batch) = ALL[name][0], arrays(name)
    expected = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch)

    def own(params, batch):
        losses, grads, norms = value_grads_and_norms(losses_fn, params, batch)
        return losses, jax.tree.map(lambda g: jax.lax.pmean(g, "d"), grads), norms

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    out = (P("d"), P(), P("d"))
    mapped = jax.shard_map(own, mesh=mesh, in_specs=(P(), P("d")), out_specs=out, check_vma=check_vma)
    chex.assert_trees_all_close(jax.jit(mapped)(params, batch), expected, rtol=1e-4, atol=1e-5)


def test_donated_arguments():
    losses_fn, (params, batch) = ALL["mlp"][0], arrays("mlp")
    run = functools.partial(value_grads_and_norms, losses_fn)
    expected = jax.jit(run)(params, batch)
    chex.assert_trees_all_equal(jax.jit(run, donate_argnums=(0, 1))(params, batch), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, np.int64])
def test_narrow_ids(dtype):
    """A table of as many rows as the type has numbers, the last of which would wrap in the type's own arithmetic."""
    size = min(int(np.iinfo(dtype).max) + 1, 2**16)
    table, ids = normal(0, size, 2), np.array([[0, size - 1], [size - 2, size - 1], [1, 1]])

    def losses_fn(tape, table, ids):
        return jnp.square(tape.embed(ids, table)).sum(axis=(1, 2))

    run = jax.jit(functools.partial(value_grads_and_norms, losses_fn))
    chex.assert_trees_all_equal(run(table, ids.astype(dtype)), run(table, ids.astype(np.int32)))
