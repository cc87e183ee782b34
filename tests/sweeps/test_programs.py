"""Programs of a chunk: what is compiled, and which device gets which run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps import programs
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


@pytest.mark.parametrize("error", [None, NotImplementedError(), jax.errors.JaxRuntimeError("UNIMPLEMENTED")])
def test_a_backend_without_an_analysis_of_memory(monkeypatch, error):
    class Executable:
        def memory_analysis(self):
            if error is not None:
                raise error

    monkeypatch.setattr(programs, "compiled", lambda lowered: Executable())
    assert program_of(train, 2, numbers={"scale": jnp.float32}, data=DATA).bytes_per_device() == 0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_arrays_without_entries_are_placed_and_taken(shape):
    program = program_of(lambda key, hparams, data: {"x": jnp.ones(())}, 16, devices=jax.devices())
    placed = program._place_runs({"x": np.zeros((9, *shape), np.float32), "y": np.arange(9)})
    taken = program.take(placed, 9)
    assert taken["x"].shape == (9, *shape) and taken["y"].tolist() == list(range(9))
