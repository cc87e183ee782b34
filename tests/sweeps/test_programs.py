"""Programs of a chunk: what is compiled, and which device gets which run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps import programs
from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.programs import Program
from mixjax.sweeps.runs import Part
from mixjax.sweeps.segments import Segments
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


def _matrix(key):
    x = jax.random.normal(key, (3, 3))
    return x @ x.T + jnp.eye(3)


DECOMPOSITIONS = {
    "solve": lambda x: jnp.linalg.solve(x, jnp.ones(3)),
    "lstsq": lambda x: jnp.linalg.lstsq(x, jnp.ones(3))[0],
    "svd": jnp.linalg.svdvals,
    "eigh": jnp.linalg.eigvalsh,
    "qr": lambda x: jnp.linalg.qr(x)[1],
    "cholesky": jnp.linalg.cholesky,
    "triangular": lambda x: jax.scipy.linalg.solve_triangular(x, jnp.ones(3)),
}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_batches_of_matrices_are_decomposed_on_one_device_of_a_cpu(name):
    # On two of them at once, XLA's threads can wait for each other for ever.
    def train(key, hparams, data):
        return {"x": DECOMPOSITIONS[name](_matrix(key))}

    def many(key, hparams, data):
        return {"x": jax.vmap(lambda key: DECOMPOSITIONS[name](_matrix(key)))(jax.random.split(key, 2))}

    two = jax.devices()[:2]
    together, alone, batched = (
        program_of(train, 4, devices=two),
        program_of(train, 4, devices=two, vectorize="map"),
        program_of(many, 4, devices=two, vectorize="map"),
    )
    assert [program.num_devices for program in (together, alone, batched)] == [1, 2, 1]
    part = Part(np.arange(4, dtype=np.uint32), {}, {})
    taken = [program.take(program.run(program.inputs(part, None)), 4)["x"] for program in (together, alone)]
    np.testing.assert_allclose(*taken, rtol=1e-4, atol=1e-5)


def test_runs_called_from_the_host_are_one_a_device_where_they_decompose_batches():
    segments = Segments(
        lambda key, hparams, data: jax.vmap(_matrix)(jax.random.split(key, 2)),
        lambda carry, hparams, data: (jnp.linalg.inv(carry), {"x": jnp.trace(carry[0])[None]}),
        num=2,
        calls=1,
    )
    program = program_of(segments, 2, devices=jax.devices()[:2], vectorize="map")
    assert (program.num_devices, program.slots) == (1, 1)


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
