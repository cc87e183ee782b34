"""A sweep that is ready to run, and the largest chunk that fits the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep, devices
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import OutOfMemoryError, Program


def train(key, hparams, data):
    return {"x": jnp.float32(0.0)}


def test_free_memory_counts_the_data_once(monkeypatch):
    monkeypatch.setattr(devices, "free_bytes", lambda devices: 1e9)
    found = []
    for data in (np.ones(1000, np.float32), jnp.ones(1000), None):
        found.append(Prepared.of(Sweep(train, seeds=2, data=data)).free_bytes)
    assert found == [1e9, 1e9 + 4000 / len(jax.local_devices()), 1e9]


def test_defaults_are_those_of_the_devices():
    prepared = Prepared.of(Sweep(train, seeds=2))
    assert prepared.devices == tuple(jax.local_devices()) and prepared.vectorize == "auto"
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


def keeps(key, hparams, data):
    """Returns 1 MB, and needs no more than that."""
    return {"x": jnp.ones(250_000) * hparams["scale"]}


def carries(num_segments):
    """Carries 1 MB from segment to segment."""

    def advance(carry, hparams, data):
        return carry * hparams["scale"], {"x": carry[:1]}

    return Segments(lambda key, hparams, data: jnp.ones(250_000), advance, num_segments)


@pytest.mark.parametrize("vectorize", ["map", "vmap", 1, 3, 16])
@pytest.mark.parametrize("train", [keeps, carries(2)], ids=["plain", "segments"])
@pytest.mark.parametrize("free", [0.0, 3e6, 20e6, 1e12])
def test_every_way_of_batching_fits_its_chunk_to_the_memory(vectorize, train, free, monkeypatch, caplog):
    monkeypatch.setattr(devices, "free_bytes", lambda devices: free / len(devices))
    local = jax.devices()[:2]
    prepared = Prepared.of(Sweep(train, seeds=40, axes={"scale": [1.0]}, vectorize=vectorize, devices=local))
    # Without XLA, which takes the most time here: a run needs 3 MB beside what the devices have in common.
    monkeypatch.setattr(Program, "bytes_per_device", lambda self: 3e6 * self.slots / self.num_devices + 1e5)
    program = prepared.build_fitting()
    needed = prepared.bytes_per_device(program) * program.num_devices
    if free == 1e12:
        slots_and_lanes = {"map": (32, 1), "vmap": (40, 20), 1: (32, 1), 3: (30, 3), 16: (20, 10)}
        assert (program.slots, program.lanes) == slots_and_lanes[vectorize]
    elif needed > free:
        # Nothing smaller is left, which is said.
        assert program.slots == 1 and "one run" in caplog.text
    else:
        assert not caplog.text and program.slots < 32


def test_a_batch_that_does_not_compile_is_halved_until_it_does(monkeypatch):
    def bytes_per_device(self):
        if self.slots > 12:
            raise OutOfMemoryError("too large")
        return 100.0

    monkeypatch.setattr(Program, "bytes_per_device", bytes_per_device)
    spec = Sweep(train, seeds=100, vectorize="vmap", devices=jax.devices()[:2])
    assert 6 <= Prepared.of(spec).build_fitting().slots <= 12


@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
def test_halving_a_chunk_ends_at_a_single_run(num_devices):
    prepared = Prepared.of(Sweep(train, seeds=4, devices=jax.devices()[:num_devices]))
    slots = 8 * num_devices
    while slots > 1:
        program = prepared.build(prepared.halved(slots))
        assert program.slots < slots and program.num_devices == min(num_devices, program.slots)
        slots = program.slots
    assert prepared.halved(1) == 1


def test_what_a_cpu_needs_counts_the_metrics_of_all_runs():
    def needed(seeds, num_devices=2):
        prepared = Prepared.of(Sweep(keeps, seeds=seeds, axes={"scale": [1.0]}, devices=jax.devices()[:num_devices]))
        return prepared.bytes_per_device(prepared.build(4)) * num_devices

    assert needed(100) - needed(20) == 80e6 == needed(100, 1) - needed(20, 1)
