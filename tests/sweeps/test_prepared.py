"""A sweep that is ready to run, and the largest chunk that fits the memory."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep, devices
from mixjax.sweeps.prepared import Prepared, fitting
from mixjax.sweeps.programs import OutOfMemoryError, Program


def train(key, hparams, data):
    return {"x": jnp.float32(0.0)}


def test_free_memory_counts_the_data_once(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda devices: 1e9)
    found = []
    for data in (np.ones(1000, np.float32), jnp.ones(1000), None):
        found.append(Prepared.of(Sweep(train, seeds=2, data=data)).free_bytes)
    assert found == [1e9, 1e9 + 4000, 1e9]


def test_defaults_are_those_of_the_devices():
    prepared = Prepared.of(Sweep(train, seeds=2))
    assert prepared.devices == tuple(jax.local_devices()) and prepared.vectorize == "map"
    assert prepared.build_fitting().slots == prepared.map_slots == 16 * len(jax.local_devices())
    with pytest.raises(ValueError, match="devices must be some of"):
        Prepared.of(Sweep(train, seeds=2, devices=[]))


def test_a_run_gets_its_numbers_and_its_labels():
    spec = Sweep(train, seeds=2, axes={"a": [0.5], "rule": ["a", "b"], "k": [1]})
    hparams = Prepared.of(spec).hparams
    assert {name: str(one.dtype) for name, one in hparams.items()} == {"a": "float32", "k": "int32", "rule": "int32"}


def test_nothing_is_computed():
    def fails(key, hparams, data):
        jax.debug.callback(lambda: pytest.fail("computed"))
        return {"x": jnp.zeros(3)}

    segments = Segments(lambda *arguments: 0, lambda carry, hparams, data: (carry, fails(0, hparams, data)), 2)
    for each in (fails, segments):
        assert Prepared.of(Sweep(each, seeds=1)).dims == {"x": ("x_0",)}


def test_auto_takes_the_largest_chunk_that_fits(monkeypatch):
    def train(key, hparams, data):  # about 200 kB a run
        noise = jax.random.normal(key, (50_000,))
        return {"x": jnp.cumsum(noise)[::10_000] * hparams["scale"]}

    sizes = []
    measure = Program.bytes_per_device
    monkeypatch.setattr(Program, "bytes_per_device", lambda self: sizes.append(self.slots) or measure(self))
    arguments = {"seeds": 40, "axes": {"scale": [1.0]}, "vectorize": "vmap", "devices": jax.devices()[:2]}
    monkeypatch.setattr(devices, "free_bytes", lambda devices: 1e12)
    everything = mixjax.sweep(train, **arguments)
    assert sizes == [40]
    monkeypatch.setattr(devices, "free_bytes", lambda devices: 3e6)
    less = mixjax.sweep(train, **arguments)
    assert len(sizes) > 1 and 2 <= sizes[-1] < 40
    assert -(-40 // sizes[-1]) * sizes[-1] - 40 < 2 * -(-40 // sizes[-1])  # shared out: no more padding than devices
    np.testing.assert_allclose(less.x, everything.x, rtol=1e-6)
    assert measure(Prepared.of(Sweep(train, **arguments)).build(sizes[-1])) <= 3e6


@pytest.mark.parametrize("compiles", [True, False])
def test_sizes_are_tried_until_one_fits(compiles):
    tried = []

    def build(slots):
        def bytes_per_device():
            if slots > 12 and not compiles:
                raise OutOfMemoryError("too large")
            return 100 * slots // 2 + 50

        tried.append(slots)
        return types.SimpleNamespace(slots=slots, num_devices=2, bytes_per_device=bytes_per_device)

    largest = 15 if compiles else 12
    assert 0.8 * largest <= fitting(build, 100, free=1000.0).slots == tried[-1] <= largest
    assert tried[0] == 100 and sorted(tried, reverse=True) == tried
    assert fitting(build, 100, free=1.0).slots <= 2  # nothing smaller is left
