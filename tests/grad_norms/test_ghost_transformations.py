"""Norms under vmap and shard_map, and in other dtypes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.grad_norms import Tape, value_grads_and_norms
from tests.grad_norms.models import MODELS, ONES, UNEVEN, compiled, direct, measured, program

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_batch_of_runs_is_a_loop_and_branches_stay_branches():
    """One run has a weight of zero, one a gradient that is too small to be squared, the others neither."""
    losses_fn, params, (x, y) = MODELS["mlp"]

    def run(scale, weights):
        params_of = jax.tree.map(lambda leaf: scale * leaf, params)
        return value_grads_and_norms(losses_fn, params_of, (x, y), weights=weights)

    scales = jnp.float32([1.0, 0.5, 1e-30])
    weights = jnp.stack([UNEVEN, UNEVEN + 1, UNEVEN + 1])
    batched = jax.jit(jax.vmap(run))(scales, weights)
    for i in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], batched), jax.jit(run)(scales[i], weights[i]), rtol=1e-5, atol=1e-6
        )
    jaxpr = jax.make_jaxpr(jax.vmap(run))(scales, weights)
    assert sum(eqn.primitive.name == "cond" for eqn in jaxpr.eqns) == 2


@pytest.mark.parametrize("check_vma", [True, False])
def test_under_shard_map_norms_are_the_examples_own_and_gradients_the_devices(check_vma):
    losses_fn, params, batch = MODELS["mlp"]
    weights = UNEVEN + 1
    _, grads, norms = jax.jit(functools.partial(value_grads_and_norms, losses_fn))(params, batch, weights=weights)
    split, whole = jax.sharding.PartitionSpec("runs"), jax.sharding.PartitionSpec()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("runs",))

    def own(params, batch, weights):
        _, grads, norms = value_grads_and_norms(losses_fn, params, batch, weights=weights)
        return jax.tree.map(lambda g: jax.lax.pmean(g, "runs"), grads), norms

    sharded = jax.jit(
        jax.shard_map(own, mesh=mesh, in_specs=(whole, split, split), out_specs=(whole, split), check_vma=check_vma)
    )
    chex.assert_trees_all_close(sharded(params, batch, weights), (grads, norms), rtol=1e-5, atol=1e-6)


def test_vmap_over_parameters():
    _, params, batch = MODELS["bag"]
    runs = [jax.tree.map(lambda x, s=s: np.float32(s) * x, params) for s in (0.5, 1.0, 1.5)]
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *runs)
    batched = jax.jit(jax.vmap(program("bag"), in_axes=(0, None, None, None)))(stacked, batch, UNEVEN, ONES)
    loop = jax.tree.map(lambda *rows: np.stack(rows), *(measured("bag", run) for run in runs))
    chex.assert_trees_all_close(batched, loop, rtol=1e-4, atol=1e-5)


def test_bfloat16_parameters():
    losses_fn, params, batch = MODELS["mlp"]
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, batch))
    _, grads, norms = compiled(losses_fn, *low)
    assert norms.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(norms, direct("mlp")[2], rtol=0.1)


def test_float64_parameters_have_float64_gradients():
    with jax.enable_x64(True):
        losses_fn, params, batch = MODELS["mlp"]
        params, batch = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, batch))
        _, grads, norms = compiled(losses_fn, params, batch)
        expected = jax.jit(jax.grad(lambda p: losses_fn(Tape(), p, batch).mean()))(params)
        chex.assert_trees_all_close(grads, expected, rtol=1e-12)
        assert norms.dtype == jnp.float32
