"""Dry runs against the sweeps that they size and time."""

import jax
import jax.numpy as jnp
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep, dry_run


def train(key, hparams, data):
    x = jax.lax.fori_loop(0, 50, lambda _, x: x @ data, jax.random.normal(key, (8, 8)) * hparams["scale"])
    return {"x": x}


DATA = jnp.eye(8)
ARGUMENTS = {"seeds": 20, "axes": {"scale": [1.0, 2.0], "name": ["a", "b", "c"]}, "data": DATA}


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_a_dry_run_counts_runs_chunks_and_operations(vectorize):
    found = dry_run(Sweep(train, chunk=16, vectorize=vectorize, **ARGUMENTS))
    assert (found.num_runs, found.chunk, found.num_devices) == (120, 16, 8)
    assert found.num_chunks == 3 * 3  # 40 runs of each name
    assert found.flops == pytest.approx(50 * 2 * 8**3, rel=0.03)
    assert found.bytes_per_device >= 16 // 8 * 8 * 8 * 4 and found.free_bytes > found.bytes_per_device
    assert found.compile_seconds >= 0 and found.run_seconds > 0
    calls = []
    mixjax.sweep(train, chunk=16, vectorize=vectorize, callback=lambda *args: calls.append(args), **ARGUMENTS)
    assert len(calls) == found.num_chunks


def tiny(key, hparams, data):
    return {"x": hparams["scale"] * jax.random.normal(key)}


def in_time(key, hparams, data):
    return jax.random.normal(key, (16, 16)) * hparams["scale"]


def advance(carry, hparams, data):
    return jax.lax.fori_loop(0, 20, lambda _, x: x @ x * 0.1, carry), {"x": carry[:1]}


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
@pytest.mark.parametrize("run", [tiny, Segments(in_time, advance, 10)], ids=["tiny", "segments"])
def test_the_time_of_small_runs_counts_what_is_done_around_them(run, vectorize):
    """Placing the runs on the devices takes ten times as long as such a run."""
    arguments = {"seeds": 200, "axes": {"scale": [1.0, 2.0]}, "chunk": 16, "vectorize": vectorize}
    ratios = []
    # A busy machine may disturb one of the two measurements.
    while not any(1 / 5 < ratio < 5 for ratio in ratios) and len(ratios) < 3:
        found = dry_run(Sweep(run, devices=jax.devices()[:1], **arguments))
        result = mixjax.sweep(run, devices=jax.devices()[:1], **arguments)
        ratios.append(found.run_seconds / result.attrs["run_seconds"])
    assert 1 / 5 < ratios[-1] < 5, ratios


def test_the_old_name_warns_and_returns_the_same():
    with pytest.warns(DeprecationWarning, match=r"is now mixjax\.sweeps\.dry_run") as warned:
        found = mixjax.sweeps.plan(tiny, seeds=4, axes={"scale": [1.0]}, chunk=2)
    assert warned[0].filename == __file__ and (found.num_runs, found.chunk) == (4, 2)
    assert "plan" not in mixjax.sweeps.__all__


def test_a_longer_sweep_is_estimated_longer():
    few, many = (dry_run(Sweep(train, chunk=16, **ARGUMENTS | {"seeds": seeds})) for seeds in (10, 10_000))
    assert many.num_runs == 1000 * few.num_runs and many.run_seconds > 20 * few.run_seconds


def test_segments_count_as_often_as_they_run():
    def advance(carry, hparams, data):
        return carry @ data, {"x": carry[:1]}

    cut = Segments(lambda key, hparams, data: jnp.ones((8, 8)), advance, 50)
    found = dry_run(Sweep(cut, seeds=3, data=DATA))
    assert found.flops == 50 * 2 * 8**3


def test_bad_arguments_fail_as_those_of_the_sweep():
    with pytest.raises(ValueError, match="chunk must be"):
        dry_run(Sweep(train, chunk=0, **ARGUMENTS))
