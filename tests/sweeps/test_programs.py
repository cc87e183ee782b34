"""Programs of a chunk: what is compiled, and which device gets which run."""

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.programs import Program
from mixjax.sweeps.runs import Part
from tests.sweeps.test_loop import DATA, train


def program_of(train, slots, *, vectorize="vmap", devices=None, numbers=(), labels=(), data=None):
    return Program(
        train,
        slots,
        vectorize=vectorize,
        devices=jax.devices()[:1] if devices is None else devices,
        hparams=Shapes({name: jax.ShapeDtypeStruct((), dtype) for name, dtype in dict(numbers).items()}),
        labels=Shapes({name: jax.ShapeDtypeStruct((), jnp.int32) for name in labels}),
        data=Shapes(data),
    )


def test_every_device_gets_its_share():
    program = program_of(train, 16, vectorize="map", devices=jax.devices(), numbers={"scale": jnp.float32}, data=DATA)
    part = Part(np.arange(9, dtype=np.uint32), {"scale": np.arange(9, dtype=np.float32)}, {})
    inputs = program.inputs(part, program.place_data(DATA))
    shards = [int(shard.data.sum()) for shard in inputs.valid.addressable_shards]
    assert program.slots == 16 and shards == [2, 1, 1, 1, 1, 1, 1, 1]
    assert program.take(inputs.state, 9).tolist() == list(range(9))
    assert [shard.data.tolist() for shard in inputs.state.addressable_shards][:2] == [[0, 8], [1, 8]]


def test_equal_shapes_share_a_program_and_slots_fill_the_devices():
    first, second = (
        program_of(train, 3, devices=jax.devices()[:2], numbers={"scale": jnp.float32}, data=DATA) for _ in "ab"
    )
    assert first._lowered is second._lowered and first.slots == 4
    assert program_of(train, 3, numbers={"scale": jnp.float32}, data=DATA).fingerprint != first.fingerprint
    assert program_of(train, 1, devices=jax.devices(), numbers={"scale": jnp.float32}, data=DATA).num_devices == 1
