"""The number of runs that a device computes at once, measured."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps import Segments, Sweep, attempts, dry_run, loop, tuning
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.tuning import choose_vectorize

pytestmark = pytest.mark.usefixtures("quick_compilation")

DEVICES = tuple(jax.devices()[:2])


def train(key, hparams, data):
    x = jax.random.normal(key, (2, 3, 4)) * hparams["scale"]
    return {"product": jnp.einsum("abi,abj->ij", x, x), "none": jnp.zeros(0)}


def sweep(**options):
    arguments = {"seeds": 21, "axes": {"scale": [1.0, 2.0]}, "devices": DEVICES} | options
    return mixjax.sweep(train, **arguments)


@pytest.fixture
def clock(monkeypatch):
    """Replaces the measurements: seconds of a run by the number at once, and which numbers were measured."""
    seconds, measured = {}, []

    def part_seconds(prepared, program, num, limit=None):
        # A single call, by which short sweeps are told, is no measurement.
        if limit is None:
            measured.append(program.lanes)
        return seconds.get(program.lanes, 1.0) * num / program.num_devices

    monkeypatch.setattr(tuning, "part_seconds", part_seconds)
    monkeypatch.setattr(tuning, "SHORT_SECONDS", 10.0)
    tuning._measured.cache_clear()
    yield seconds, measured
    # Made-up times must not be found by other tests.
    tuning._measured.cache_clear()


def constant(key, hparams, data):
    return {"x": hparams["scale"]}


def prepared(num_runs):
    # Compiled quickly: the program is never run.
    return Prepared.of(Sweep(constant, seeds=num_runs, axes={"scale": [1.0]}, devices=DEVICES, vectorize="auto"))


@pytest.mark.parametrize(
    ("times", "best", "tried"),
    [
        ({}, "map", [1, 512, 4]),
        ({4: 0.97}, "map", [1, 512, 4]),  # within the noise
        ({4: 0.5}, 4, [1, 512, 4, 16]),
        ({4: 0.5, 16: 0.4}, 16, [1, 512, 4, 16, 64]),
        ({4: 3.0, 16: 2.0, 512: 0.5}, 512, [1, 512, 256]),  # rises before it falls
        ({256: 0.4, 512: 0.5}, 256, [1, 512, 256, 64]),
    ],
)
def test_the_search_finds_the_fastest_at_either_end(clock, times, best, tried):
    seconds, measured = clock
    seconds.update(times)
    assert choose_vectorize(prepared(1024), None, 10**9) == best and measured == tried
    # A second sweep finds the measurements.
    assert choose_vectorize(prepared(1024), None, 10**9) == best and measured == tried


@pytest.mark.parametrize(
    ("num_runs", "one", "best", "tried"),
    [
        (38, 100.0, "map", []),  # a single one of 19 rounds would be more than a twentieth
        (1000, 0.01, "map", []),  # five seconds are over before it pays
        (100, 1.0, "map", [1]),  # of 50 seconds 3 may be spent: one call of 4 takes more
        (1000, 1.0, 16, [1, 16, 4]),  # of 500 seconds 25
    ],
)
def test_short_sweeps_are_not_measured_for_long(clock, num_runs, one, best, tried):
    seconds, measured = clock
    seconds.update({1: one, 16: one / 2})
    assert choose_vectorize(prepared(1024), None, num_runs) == best and measured == tried


def test_one_slow_call_makes_no_sweep_a_long_one(monkeypatch, clock):
    calls = iter([1.0, 0.01])
    monkeypatch.setattr(tuning, "part_seconds", lambda *arguments, **limit: next(calls))
    assert choose_vectorize(prepared(1024), None, 100) == "map" and next(calls, None) is None


def test_compiling_counts_as_time_spent(clock, monkeypatch):
    seconds, measured = clock
    seconds[4] = 0.5
    monkeypatch.setattr(tuning.Program, "compile_seconds", property(lambda self: 50.0))
    assert choose_vectorize(prepared(1024), None, 3000) == "map" and measured == [1]
    assert choose_vectorize(prepared(1024), None, 10_000) == 4 and measured[0] == 1


def test_there_are_no_more_at_once_than_runs_in_a_chunk(clock):
    seconds, measured = clock
    seconds.update({10: 0.4, 3: 0.3})
    # Of 10 runs a device, 4 at once would leave two over: 2 do not.
    assert choose_vectorize(prepared(1024), 20, 10**9) == 10 and measured == [1, 10, 2]
    assert choose_vectorize(prepared(5), None, 10**9) == 3 and measured == [1, 10, 2, 3]


@pytest.mark.parametrize("function", [train, constant])
def test_merged_products_are_measured_where_there_are_any(clock, monkeypatch, function):
    modes = []
    part_seconds = tuning.part_seconds

    def recorded(prepared, program, num, **limit):
        if not limit:
            modes.append(program.signature.vectorize)
        seconds = part_seconds(prepared, program, num, **limit)
        return seconds if program.signature.vectorize == "map" else seconds / 2

    monkeypatch.setattr(tuning, "part_seconds", recorded)
    spec = Sweep(function, seeds=4, axes={"scale": [1.0]}, devices=DEVICES, vectorize="auto")
    # Two runs a device: one after the other, with merged products or not, or both at once.
    chosen = choose_vectorize(Prepared.of(spec), None, 10**9)
    assert (chosen, modes) == ((1, ["map", 1, 2]) if function is train else (2, ["map", 2]))


def test_what_does_not_fit_is_not_taken(clock, monkeypatch):
    seconds, measured = clock
    seconds.update({32: 0.5, 4: 0.5})
    tight = dataclasses.replace(prepared(64), free_bytes=0.0)
    assert choose_vectorize(tight, None, 10**9) == "map" and measured == [1]


@pytest.mark.parametrize("chunk", ["auto", 10])
def test_a_number_at_once_gives_the_same_results(chunk):
    expected = sweep(vectorize="vmap")
    for vectorize in (1, np.int64(4), 100):
        result = sweep(vectorize=vectorize, chunk=chunk)
        np.testing.assert_allclose(result.product, expected.product, rtol=1e-5)
        assert result.none.shape == expected.none.shape and result.attrs["vectorize"] == vectorize
        assert result.attrs["num_computed"] == 42


def test_the_choice_is_in_the_result_and_repeats_it_bitwise(clock, monkeypatch):
    monkeypatch.setattr(tuning, "MOST_SHARE", 1e9)
    monkeypatch.setattr(tuning, "LEAST_SECONDS", 1e9)
    seconds, _ = clock
    for faster, chosen in ((21, 21), (4, 4), (1, "map")):
        seconds.clear()
        seconds[faster] = 0.5
        tuning._measured.cache_clear()
        result = sweep()
        assert result.attrs["vectorize"] == chosen
        np.testing.assert_array_equal(sweep(vectorize=chosen).product, result.product)


def stops(calls):
    def callback(done, total):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    return callback


def test_a_checkpoint_keeps_the_choice(clock, monkeypatch, tmp_path, save_always):
    monkeypatch.setattr(tuning, "MOST_SHARE", 1e9)
    monkeypatch.setattr(tuning, "LEAST_SECONDS", 1e9)
    seconds, measured = clock
    seconds[4] = 0.5
    options = {"vectorize": "auto", "chunk": 8}
    with pytest.raises(KeyboardInterrupt):
        sweep(checkpoint=tmp_path, callback=stops([]), **options)
    # Now another number would be the faster one.
    seconds[4] = 2.0
    tuning._measured.cache_clear()
    before = len(measured)
    result = sweep(checkpoint=tmp_path, **options)
    assert result.attrs["vectorize"] == 4 and 0 < result.attrs["num_computed"] < 42 and len(measured) == before
    np.testing.assert_array_equal(result.product, sweep(vectorize=4, chunk=8).product)
    again = sweep(checkpoint=tmp_path, **options)
    assert again.attrs["vectorize"] == 4 and again.attrs["num_computed"] == 0
    with pytest.raises(ValueError, match="vectorize"):
        sweep(checkpoint=tmp_path, vectorize=4, chunk=8)


def test_a_folder_begun_one_run_after_the_other_goes_on_so(clock, tmp_path, save_always):
    options = {"chunk": 8, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        sweep(vectorize="map", callback=stops([]), **options)
    result = sweep(**options)
    assert result.attrs["vectorize"] == "map" and 0 < result.attrs["num_computed"] < 42
    assert sweep(**options).attrs["num_computed"] == 0


def start(key, hparams, data):
    return jax.random.normal(key, (2, 3))


def advance(x, hparams, data):
    x = x - 0.1 * jnp.einsum("ab,ab->", x, x) * x
    return x, {"x": x[None]}


def test_segments_are_measured_by_one_segment():
    cut = Segments(start, advance, 3)
    arguments = {"seeds": 7, "devices": DEVICES, "dims": {"x": ("time", "a", "b")}}
    expected = mixjax.sweep(cut, vectorize="map", **arguments)
    for vectorize in ("auto", 2):
        result = mixjax.sweep(cut, vectorize=vectorize, **arguments)
        np.testing.assert_allclose(result.x, expected.x, rtol=1e-5)


def test_keys_that_depend_on_the_batch_are_computed_one_by_one():
    with jax.default_prng_impl("rbg"):
        assert sweep(vectorize="auto").attrs["vectorize"] == sweep().attrs["vectorize"] == "map"
        with pytest.raises(ValueError, match=r"vectorize=4 with jax_default_prng_impl='rbg'"):
            sweep(vectorize=4)


def test_a_dry_run_measures_too():
    found = dry_run(Sweep(train, seeds=21, axes={"scale": [1.0]}, devices=DEVICES, vectorize="auto"))
    assert found.num_runs == 21 and found.run_seconds > 0


def test_a_kill_for_memory_while_measuring_is_told_and_not_tried_again(tmp_path, monkeypatch, caplog):
    """A killed process leaves its note; a note that is put back afterwards stands for it."""
    kills, note, left = {"counter": 4}, tmp_path / "attempt_0.json", []
    monkeypatch.setattr(attempts, "memory_kills", lambda root: dict(kills))

    def choose(*_):
        left.append(note.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "choose_vectorize", choose)

    def swept():
        return mixjax.sweep(
            lambda key, hparams, data: {"x": hparams["a"]},
            seeds=2,
            axes={"a": [1.0]},
            vectorize="auto",
            checkpoint=tmp_path,
        )

    with pytest.raises(KeyboardInterrupt):
        swept()
    note.write_text(left[0])
    kills["counter"] += 1
    assert swept().attrs["vectorize"] == "map" and len(left) == 1
    assert "killed for memory while it measured how many runs to compute at once" in caplog.text
