"""Tests casts between what varies over devices and what does not, and functions on meshes with Explicit axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mixjax import meshes


def mesh_of(*kinds):
    return jax.make_mesh((2,) * len(kinds), ("a", "b")[: len(kinds)], axis_types=kinds)


def mapped(fun, x, *, check_vma=True):
    """Calls a function on each device's part of `x`."""
    return jax.shard_map(fun, mesh=mesh_of(AxisType.Auto), in_specs=P("a"), out_specs=P("a"), check_vma=check_vma)(x)


def test_varying_axes():
    seen = {}
    x = jnp.ones(2)
    for check_vma in (True, False):
        mapped(lambda x, c=check_vma: seen.update({c: meshes.varying_axes(x)}) or x, x, check_vma=check_vma)
    assert seen == {True: {"a"}, False: set()}
    assert meshes.varying_axes(x) == meshes.varying_axes(3.0) == meshes.varying_axes("text") == set()


def test_varying_like_casts_every_leaf_once():
    types = {}

    def fun(x):
        tree = {"state": jnp.zeros(3), "key": jax.random.key(0), "number": 1.0, "own": x}
        cast = meshes.varying_like(tree, {"losses": x, "name": "text"}, None)
        types.update({name: meshes.varying_axes(leaf) for name, leaf in cast.items()})
        return x

    mapped(fun, jnp.ones(2))
    assert set(types) == {"state", "key", "number", "own"} and all(axes == {"a"} for axes in types.values())


def test_varying_like_leaves_alone_what_needs_no_cast():
    tree = {"state": jnp.zeros(3), "number": 1.0}
    same = meshes.varying_like(tree, jnp.ones(2))
    assert all(same[name] is tree[name] for name in tree)


@pytest.mark.parametrize("check_vma", [True, False])
def test_is_unchecked(check_vma):
    seen = []
    mapped(lambda x: seen.append(meshes.is_unchecked("a")) or x, jnp.ones(2), check_vma=check_vma)
    assert seen == [not check_vma]


def test_other_mapped_axes_are_not_unchecked():
    seen = []
    jax.vmap(lambda x: seen.append(meshes.is_unchecked("a")) or x, axis_name="a")(jnp.ones(2))
    assert seen == [False]


def sums(x, ids):
    # A segment sum and a gather by ids, both of which JAX refuses on sharded ids in an Explicit mesh.
    totals = jax.ops.segment_sum(x, ids, 3)
    return totals, totals[ids]


@pytest.mark.parametrize("kinds", [(AxisType.Explicit,), (AxisType.Explicit, AxisType.Auto), (AxisType.Auto,)])
@pytest.mark.parametrize("compiled", [True, False])
def test_with_auto_axes(kinds, compiled):
    mesh = mesh_of(*kinds)
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, P("a"))
        x = jax.device_put(jnp.arange(4.0), place)
        ids = jax.device_put(jnp.array([0, 2, 0, 2]), place)

        def fun(x, ids):
            return meshes.with_auto_axes(sums, (P(), meshes.spec_of(ids)))(x, ids)

        totals, rows = (jax.jit(fun) if compiled else fun)(x, ids)
        grads = jax.grad(lambda x: (fun(x, ids)[1] ** 2).sum())(x)
    np.testing.assert_array_equal(totals, [2.0, 0.0, 4.0])
    np.testing.assert_array_equal(rows, [2.0, 4.0, 2.0, 4.0])
    np.testing.assert_array_equal(grads, [8.0, 16.0, 8.0, 16.0])
    sharded = [axis for axis in meshes.spec_of(rows) if axis]
    assert sharded == (["a"] if AxisType.Explicit in kinds else [])
    assert not any(meshes.spec_of(totals)) and meshes.spec_of(3.0) == P()
