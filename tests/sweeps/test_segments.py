"""Runs cut in time: equal to whole ones, resumed from their carry, stopped early without touching their neighbours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep, diverged, dry_run
from mixjax.sweeps.checkpoints import ChangedError
from mixjax.sweeps.lowering import Shapes
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.programs import OutOfMemoryError, Program
from mixjax.sweeps.runs import Part

STEPS = 6


def init(key, hparams, data):
    return {"key": key, "x": jnp.float32(1.0), "step": jnp.int32(0)}


def advance(carry, hparams, data):
    def step(carry, _):
        key, own = jax.random.split(carry["key"])
        x = carry["x"] * hparams["rate"] + data * jax.random.normal(own)
        x = jnp.where(carry["step"] >= hparams["breaks"], jnp.nan, x)
        carry = {"key": key, "x": x, "step": carry["step"] + 1}
        return carry, {"x": x, "step": carry["step"]}

    return jax.lax.scan(step, carry, length=2)


def whole(key, hparams, data):
    carry, parts = init(key, hparams, data), []
    for _ in range(STEPS // 2):
        carry, metrics = advance(carry, hparams, data)
        parts.append(metrics)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


TRAIN = Segments(init, advance, STEPS // 2)
STOPPING = Segments(init, advance, STEPS // 2, stop=diverged)


def finish(carry, hparams, data):
    return {"last": carry["x"], "end": {"step": carry["step"], "both": carry["step"] * jnp.ones(2) * data}}


FINISHING = Segments(init, advance, STEPS // 2, stop=diverged, finish=finish)


@pytest.fixture(scope="module", name="dims")
def _dims():
    return {"x": ("time",), "step": ("time",)}


def test_joined_segments_are_the_whole_run(dims):
    arguments = {"seeds": 3, "axes": {"rate": [0.5, 0.9], "breaks": [99, 1]}, "data": jnp.float32(0.1), "chunk": 4}
    for vectorize in ("map", "vmap"):
        cut, uncut = (
            mixjax.sweep(train, dims=dims, vectorize=vectorize, coords={"time": list("abcdef")}, **arguments)
            for train in (TRAIN, whole)
        )
        np.testing.assert_allclose(cut.x, uncut.x, rtol=1e-6)
        np.testing.assert_array_equal(cut.step, uncut.step)


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_a_segment_takes_over_the_memory_of_the_carry_before(vectorize):
    scalar, devices = jax.ShapeDtypeStruct((), jnp.float32), jax.devices()[:2]
    hparams = Shapes({"rate": scalar, "breaks": scalar})
    program = Program(
        TRAIN, 4, vectorize=vectorize, devices=devices, hparams=hparams, labels=Shapes({}), data=Shapes(scalar)
    )
    rates, breaks = np.full(4, 0.5, np.float32), np.full(4, 99.0, np.float32)
    part = Part(np.arange(4, dtype=np.uint32), {"rate": rates, "breaks": breaks}, {})
    inputs = program.inputs(part, program.place_data(jnp.float32(0.1)))
    first = program.start(inputs)
    second, _ = program.run(inputs._replace(state=first))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert second["step"].tolist() == [2] * 4


def test_progress_and_records_between_segments(dims):
    calls, records = [], []
    mixjax.sweep(
        TRAIN,
        seeds=4,
        axes={"rate": [0.5], "breaks": [99]},
        data=jnp.float32(0.0),
        dims=dims,
        chunk=2,
        callback=lambda *args: calls.append(args),
        tracker=records.append,
    )
    assert calls == [(2 / 3, 4), (4 / 3, 4), (2, 4), (2 + 2 / 3, 4), (2 + 4 / 3, 4), (4, 4)]
    assert [(r["segment"], r["segments"]) for r in records] == [(1, 3), (2, 3), (3, 3)] * 2
    np.testing.assert_allclose([r["metrics"]["x"] for r in records], [0.5**2, 0.5**4, 0.5**6] * 2)


def test_a_chunk_goes_on_from_its_last_carry(dims, tmp_path, monkeypatch, save_always):
    arguments = {
        "seeds": 5,
        "axes": {"rate": [0.9], "breaks": [99]},
        "data": jnp.float32(0.1),
        "dims": dims,
        "chunk": 2,
    }
    undisturbed, calls, call = mixjax.sweep(TRAIN, **arguments), [], Program.run
    monkeypatch.setattr(Program, "run", lambda *args: calls.append(1) or call(*args))

    before = [0]

    def stop(done, total):
        if len(calls) > before[0] + 1:
            before[0] = len(calls)
            raise KeyboardInterrupt

    for _ in range(20):  # killed after every second segment
        try:
            result = mixjax.sweep(TRAIN, checkpoint=tmp_path, callback=stop, **arguments)
        except KeyboardInterrupt:
            continue
        break
    assert 9 < len(calls) < 20  # two segments each time, of which the one before the kill is not yet kept
    np.testing.assert_array_equal(result.x, undisturbed.x)
    assert not list(tmp_path.glob("carry_*"))


def test_the_carry_of_a_larger_chunk_is_not_taken_for_a_smaller_one(dims, tmp_path, monkeypatch, save_always):
    arguments = {"seeds": 4, "axes": {"rate": [0.9], "breaks": [99]}, "data": jnp.float32(0.1), "dims": dims}
    arguments |= {"vectorize": "vmap", "devices": jax.devices()[:1]}
    call, sizes = Program.run, []

    def run(program, *args):
        if program.slots == 4 and list(tmp_path.glob("carry_*")):
            raise OutOfMemoryError("full")
        sizes.append(program.slots)
        return call(program, *args)

    monkeypatch.setattr(Program, "run", run)
    result = mixjax.sweep(TRAIN, checkpoint=tmp_path, **arguments)
    assert sizes == [4] + [2] * 6
    np.testing.assert_array_equal(result.x, mixjax.sweep(TRAIN, chunk=2, **arguments).x)


def test_a_damaged_carry_costs_its_chunk_only(dims, tmp_path, save_always):
    arguments = {"seeds": 2, "axes": {"rate": [0.9], "breaks": [99]}, "data": jnp.float32(0.1), "dims": dims}

    def stop(done, total):
        if list(tmp_path.glob("carry_*")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixjax.sweep(TRAIN, checkpoint=tmp_path, callback=stop, **arguments)
    (path,) = tmp_path.glob("carry_*")
    path.write_bytes(path.read_bytes()[:100])
    result = mixjax.sweep(TRAIN, checkpoint=tmp_path, **arguments)
    np.testing.assert_array_equal(result.x, mixjax.sweep(TRAIN, **arguments).x)


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_runs_that_are_done_repeat_their_last_row_and_others_go_on(dims, vectorize):
    arguments = {"seeds": 2, "data": jnp.float32(0.0), "dims": dims, "vectorize": vectorize}
    axes = {"rate": [0.5], "breaks": [99, 3]}
    mixed = mixjax.sweep(STOPPING, axes=axes, chunk=4, **arguments)
    np.testing.assert_allclose(mixed.x.sel(breaks=99)[0, 0], 0.5 ** np.arange(1, 7))
    assert mixed.step.sel(breaks=99)[0, 0].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert mixed.step.sel(breaks=3)[0, 0].values.tolist() == [1, 2, 3, 4, 4, 4]  # done after the second segment
    assert np.isnan(mixed.x.sel(breaks=3)[0, 0]).values.tolist() == [False] * 3 + [True] * 3
    for chunk in (1, 2):  # whoever shares the chunk
        alone = mixjax.sweep(STOPPING, axes=axes, chunk=chunk, **arguments)
        np.testing.assert_array_equal(alone.step, mixed.step)
        np.testing.assert_allclose(alone.x, mixed.x, rtol=1e-6)


@pytest.mark.parametrize("vectorize", ["map", "vmap"])
def test_the_end_of_a_run_is_measured_where_it_ended_and_not_where_its_chunk_did(dims, vectorize):
    arguments = {"seeds": 2, "data": jnp.float32(0.5), "dims": dims, "vectorize": vectorize}
    axes = {"rate": [0.5], "breaks": [99, 3, 0]}
    mixed = mixjax.sweep(FINISHING, axes=axes, chunk=6, **arguments)
    assert mixed["end.step"][0].values.tolist() == [[6, 6], [4, 4], [2, 2]]
    assert mixed["end.both"].shape == (1, 3, 2, 2) and mixed["end.both"].sel(breaks=3).values.max() == 2.0
    np.testing.assert_array_equal(mixed["last"], mixed.x[..., -1])
    alone = mixjax.sweep(FINISHING, axes=axes, chunk=1, **arguments)  # whoever shares the chunk
    np.testing.assert_array_equal(alone["end.step"], mixed["end.step"])
    np.testing.assert_allclose(alone["last"], mixed["last"], rtol=1e-6)


def test_a_chunk_some_of_whose_runs_have_ended_goes_on_from_its_carry(dims, tmp_path, save_always):
    arguments = {"seeds": 3, "axes": {"rate": [0.9], "breaks": [99, 3, 0]}, "data": jnp.float32(0.1), "dims": dims}
    undisturbed, records = mixjax.sweep(FINISHING, chunk=9, **arguments), []

    def stop(done, total):
        if list(tmp_path.glob("carry_*")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixjax.sweep(FINISHING, chunk=9, checkpoint=tmp_path, callback=stop, **arguments)
    # By then the three runs that break at once have ended, and what they ended with is in the carry.
    result = mixjax.sweep(FINISHING, chunk=9, checkpoint=tmp_path, tracker=records.append, **arguments)
    assert records[0]["segment"] == 2
    for name in undisturbed:
        np.testing.assert_array_equal(result[name], undisturbed[name])
    np.testing.assert_allclose(records[-1]["metrics"]["end.both"], 0.6, rtol=1e-6)  # of runs that have not diverged


def test_calls_from_the_host_join_to_the_same_run_outside_of_any_loop(dims, tmp_path):
    def step(carry, hparams, data):
        key, own = jax.random.split(carry["key"])
        x = carry["x"] * hparams["rate"] + data * jax.random.normal(own)
        carry = {"key": key, "x": x, "step": carry["step"] + 1}
        return carry, {"x": x[None], "step": carry["step"][None]}

    arguments = {"seeds": 3, "axes": {"rate": [0.5, 0.9]}, "data": jnp.float32(0.1), "dims": dims}
    arguments |= {"devices": jax.devices()[:2]}
    called = Segments(init, step, 3, finish=finish, calls=2)
    chunks = []
    found = mixjax.sweep(called, tracker=chunks.append, checkpoint=tmp_path, vectorize="auto", **arguments)
    assert found.attrs["chunk"] == 2 and [record["segment"] for record in chunks] == [1, 2, 3] * 3
    arguments["axes"] |= {"breaks": [99]}
    looped = mixjax.sweep(FINISHING, **arguments).squeeze("breaks", drop=True)
    for name in looped:
        np.testing.assert_allclose(found[name], looped[name], rtol=1e-6)
    del arguments["axes"]["breaks"]
    batch = mixjax.sweep(called, vectorize="vmap", **arguments)
    np.testing.assert_allclose(batch.x, found.x, rtol=1e-6)
    spec = Sweep(called, **arguments, vectorize="map", chunk=32)
    program = Prepared.of(spec).build(32)
    # Drawing normal numbers takes a loop of its own in the program of a step.
    assert program.slots == 2 and "while" not in program._lowered.programs[2].as_text()
    assert dry_run(spec).num_chunks == 3
    with pytest.raises(ChangedError, match="calls: 2, now 3"):
        mixjax.sweep(called._replace(num=2, calls=3), checkpoint=tmp_path, vectorize="auto", **arguments)
    with pytest.raises(ValueError, match="vectorize must be 'map' or 'vmap' for Segments with calls, got 4"):
        mixjax.sweep(called, vectorize=4, **arguments)


def test_a_dry_run_counts_the_end():
    def costly(carry, hparams, data):
        return {"y": jnp.ones((8, 8)) @ jnp.full((8, 8), carry["x"])}

    spec = Sweep(TRAIN._replace(finish=costly), seeds=2, axes={"rate": [0.9], "breaks": [9]}, data=jnp.float32(0.1))
    cheap = dry_run(dataclasses.replace(spec, train=TRAIN)).flops
    assert dry_run(spec).flops == cheap + 2 * 8**3


def test_a_chunk_ends_when_all_its_runs_are_done(dims, monkeypatch):
    calls, call = [], Program.run
    monkeypatch.setattr(Program, "run", lambda *args: calls.append(1) or call(*args))
    axes = {"rate": [0.5], "breaks": [0, 1]}
    for train, expected in ((STOPPING, 1), (TRAIN, 3)):
        calls.clear()
        result = mixjax.sweep(train, seeds=2, axes=axes, data=jnp.float32(0.0), dims=dims)
        assert len(calls) == expected and np.isnan(result.x[0, 1, 0, 1:]).all()


def test_segments_and_their_end_are_part_of_a_checkpoint(dims, tmp_path):
    arguments = {"seeds": 2, "axes": {"rate": [0.9], "breaks": [99]}, "data": jnp.float32(0.1)}
    mixjax.sweep(TRAIN, dims=dims, checkpoint=tmp_path, **arguments)
    for train, match in [(Segments(init, advance, 4), "segments: 3, now 4"), (STOPPING, "stop: null, now")]:
        with pytest.raises(ChangedError, match=match):
            mixjax.sweep(train, dims=dims, checkpoint=tmp_path, **arguments)


def test_a_carry_of_pythons_numbers_and_of_nothing():
    def init(key, hparams, data):
        return {"step": 0, "x": 1.0, "empty": jnp.zeros((0, 3))}

    def advance(carry, hparams, data):
        return carry | {"step": carry["step"] + 1}, {"step": carry["step"][None]}

    result = mixjax.sweep(Segments(init, advance, 3), seeds=9, dims={"step": ("time",)})
    assert result.step.values.tolist() == [[0, 1, 2]] * 9


def test_the_last_value_of_one_segment_is_along_time():
    records = []

    def advance(carry, hparams, data):
        return carry, {"loss": jnp.array([[1.0, 2.0], [3.0, 7.0]])}  # [time, method]

    train = Segments(lambda key, hparams, data: jnp.zeros(()), advance, 1)
    mixjax.sweep(train, seeds=1, tracker=records.append)
    assert records[0]["metrics"] == {"loss": 5.0}


def test_errors_name_what_is_wrong():
    def grows(carry, hparams, data):
        return {**carry, "x": jnp.ones(2)}, {"x": jnp.ones(2)}

    def scalar(carry, hparams, data):
        return carry, {"x": jnp.ones(())}

    arguments = {"seeds": 1, "axes": {"rate": [0.5], "breaks": [1]}, "data": jnp.float32(0.0)}
    for train, error, match in [
        (Segments(init, grows, 2), TypeError, "a carry like the one it got"),
        (Segments(init, scalar, 2), ValueError, "'x' of a segment needs time as its first dimension"),
        (Segments(init, advance, 0), ValueError, "num must be an integer, at least 1 segment, got 0"),
        (Segments(init, advance, 2, calls=0), ValueError, "calls must be None or an integer, at least 1 call .* got 0"),
        (Segments(init, advance, 2.5), ValueError, "num must be an integer, at least 1 segment, got 2.5"),
        (Segments(init, lambda carry, hparams, data: (carry, [jnp.ones(1)]), 1), TypeError, "dict of arrays, got list"),
        (Segments(init, advance, 3, stop=lambda metrics: metrics["x"] > 1), TypeError, "stop must return one bool"),
        (Segments(init, advance, 3, finish=lambda *_: {"x": jnp.ones(1)}), ValueError, "finish need other names"),
        (Segments(init, advance, 3, finish=lambda *_: [1.0]), TypeError, "dict of arrays, got list"),
    ]:
        with pytest.raises(error, match=match):
            mixjax.sweep(train, **arguments)
    with pytest.raises(ValueError, match=r"6 entries along 'time'.*5"):
        mixjax.sweep(TRAIN, dims={"x": ("time",), "step": ("time",)}, coords={"time": range(5)}, **arguments)


def test_a_carry_with_an_array_without_entries_is_continued(tmp_path, save_always):
    def empty_init(key, hparams, data):
        return {"x": jax.random.normal(key), "a": jnp.zeros((0, 3)), "b": jnp.zeros((2, 0), jnp.int32)}

    def halve(carry, hparams, data):
        return carry | {"x": carry["x"] / 2}, {"x": carry["x"][None], "none": jnp.zeros((1, 0))}

    def stop(done, total):
        if done > 1:
            raise KeyboardInterrupt

    train = Segments(empty_init, halve, 4)
    with pytest.raises(KeyboardInterrupt):
        mixjax.sweep(train, seeds=3, checkpoint=tmp_path, callback=stop)
    assert list(tmp_path.glob("carry_*"))
    result = mixjax.sweep(train, seeds=3, checkpoint=tmp_path)
    assert result.none.shape == (3, 4, 0)
    np.testing.assert_array_equal(result.x, mixjax.sweep(train, seeds=3).x)
