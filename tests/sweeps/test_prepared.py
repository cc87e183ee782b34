"""A sweep that is ready to run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps import Segments, Sweep, devices
from mixjax.sweeps.prepared import Prepared


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
