"""Which arrays get a copy of their own on each device; `test_hypergrad.py` has the hypergradients of both readings."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mixjax.hypergrad.devices import on_each_device, zeros_for_losses
from mixjax.meshes import varying_axes

WEIGHTS, PARAMS, STATE = np.full(2, 0.5), jnp.ones(3), (jnp.zeros(3), jnp.int32(0))
BATCHES = np.ones((4, 2, 3))


def loss(params, batch):
    return jnp.sum((params - batch) ** 2)


def averaged(params, batch):
    return jax.lax.pmean(loss(params, batch), "d")


def identity(batch):
    return batch


def axes_of(function, batches):
    """The mesh axes over which the inputs vary, after the choice for `function`, and those of the zeros."""
    found = []

    def look(batches):
        inputs = on_each_device(function, (jnp.asarray(WEIGHTS), PARAMS, STATE), identity, batches)
        found.extend(varying_axes(x) for x in [*jax.tree.leaves(inputs), zeros_for_losses(inputs[0])])
        return batches

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    jax.shard_map(look, mesh=mesh, in_specs=P(None, None, "d"), out_specs=P(None, None, "d"))(batches)
    return set(found)


def test_outside_shard_map_nothing_is_touched():
    inputs = jnp.asarray(WEIGHTS), PARAMS, STATE
    same = jax.tree.map(lambda a, b: a is b, on_each_device(loss, inputs, identity, BATCHES), inputs)
    assert jax.tree.all(same)


def test_a_loss_of_its_own_gives_each_device_a_run_of_its_own():
    batches = jnp.ones((4, 2, 6))
    assert axes_of(loss, batches) == {frozenset({"d"})}
    assert axes_of(averaged, batches) == {frozenset()}
