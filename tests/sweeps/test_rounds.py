"""Tests that training in rounds goes on where it was killed, to the bit, and saves as seldom as it promises."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixjax.sweeps import HostRun, in_rounds, rounds


@pytest.fixture
def run(tmp_path):
    """Returns a run whose reports are collected in ``run.data``."""
    reports = []
    return HostRun(0, {}, reports, tmp_path, tmp_path, reports.append)


def start():
    return {
        "key": jax.random.key(3),
        "rbg": jax.random.key(4, impl="rbg"),
        "x": jnp.zeros(2, jnp.bfloat16),
        "n": np.int64(0),
    }


def advance(state, number):
    key, used = jax.random.split(state["key"])
    x = state["x"] + jax.random.normal(used, (2,), jnp.bfloat16) + jax.random.normal(state["rbg"], (2,), jnp.bfloat16)
    return state | {"key": key, "x": x, "n": state["n"] + 1}, {"x": x, "number": number}


def words(state):
    return jax.tree.map(lambda leaf: np.asarray(rounds.bits(leaf)).tolist(), state)


def test_metrics_are_joined_and_progress_is_told(run):
    state, metrics = in_rounds(run, start, advance, 3)
    assert metrics["number"].tolist() == [0, 1, 2] and metrics["x"].shape == (3, 2) and state["n"] == 3
    assert run.data == [1 / 3, 2 / 3, 1.0]
    np.testing.assert_array_equal(metrics["x"][-1], state["x"])


@pytest.mark.parametrize("killed_in", range(5))
def test_a_killed_run_ends_as_if_it_had_not_been(run, tmp_path, killed_in):
    whole = in_rounds(run._replace(scratch=_made(tmp_path / "whole")), start, advance, 5)
    calls = []

    def until_killed(state, number):
        calls.append(number)
        if number == killed_in and len(calls) == killed_in + 1:
            raise KeyboardInterrupt
        return advance(state, number)

    with pytest.raises(KeyboardInterrupt):
        in_rounds(run, start, until_killed, 5, at_least=0.0)
    again = in_rounds(run, start, until_killed, 5, at_least=0.0)
    assert words(again[0]) == words(whole[0])
    jax.tree.map(np.testing.assert_array_equal, again[1], whole[1])
    # Rounds whose saving took long enough are done again; none is left out.
    assert calls[killed_in + 1 :] == list(range(calls[killed_in + 1], 5))


def test_a_finished_loop_is_not_trained_again(run):
    first = in_rounds(run, start, advance, 2)
    again = in_rounds(run, start, lambda state, number: pytest.fail("trained again"), 2)
    assert words(first[0]) == words(again[0])


def test_the_end_is_measured_once_and_kept(run):
    calls = []

    def finish(state):
        calls.append(state["n"])
        return {"last": state["x"], "count": len(calls)}

    whole = in_rounds(run, start, advance, 2, finish=finish)[1]
    assert calls == [2] and sorted(whole) == ["count", "last", "number", "x"]
    np.testing.assert_array_equal(whole["last"], whole["x"][-1])
    again = in_rounds(run, start, lambda state, number: pytest.fail("trained again"), 2, finish=finish)[1]
    assert calls == [2]
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_run_killed_before_its_end_was_measured_measures_it(run):
    first = in_rounds(run, start, advance, 2)[1]
    with pytest.raises(KeyboardInterrupt):
        in_rounds(run, start, advance, 2, finish=_killed)
    ended = in_rounds(run, start, advance, 2, finish=lambda state: {"n": state["n"]})[1]
    assert ended.pop("n") == 2
    jax.tree.map(np.testing.assert_array_equal, ended, first)
    with pytest.raises(ValueError, match=r"finish need other names than those of advance, got \['x'\]"):
        in_rounds(run, start, advance, 2, name="twice", finish=lambda state: {"x": state["x"]})


def _killed(state):
    raise KeyboardInterrupt


def test_two_loops_of_a_run_are_kept_apart(run):
    one, _ = in_rounds(run, start, advance, 2, name="one")
    other, _ = in_rounds(run, start, advance, 3, name="other")
    assert one["n"] == 2 and other["n"] == 3


def test_a_donated_state_and_no_metrics(run):
    step = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    for num in (2, 4):
        state, metrics = in_rounds(run, lambda: jnp.zeros(3), lambda x, number: (step(x), {}), num)
        assert state.tolist() == [num] * 3 and metrics == {}


def test_a_damaged_file_is_told_and_trained_again(run, caplog):
    first, _ = in_rounds(run, start, advance, 2)
    (run.scratch / "rounds.npz").write_bytes(b"no archive")
    again, _ = in_rounds(run, start, advance, 2)
    assert words(first) == words(again)
    assert "rounds.npz is damaged, and its rounds are trained again" in caplog.text


def test_another_training_is_refused(run):
    in_rounds(run, start, advance, 1)
    message = r"rounds\.npz was saved by another training: its state is .+, now it is float32\[4\]\.$"
    with pytest.raises(ValueError, match=message):
        in_rounds(run, lambda: jnp.zeros(4), advance, 2)


@pytest.mark.parametrize("wrong", [{"num": 0}, {"num": 2, "at_least": -1.0}, {"num": 2, "at_least": np.nan}])
def test_bad_arguments_are_refused(run, wrong):
    with pytest.raises(ValueError, match=f"^{list(wrong)[-1]} must be"):
        in_rounds(run, start, advance, **wrong)


@pytest.mark.parametrize("leaf", [1, 2.5, True, "text"])
def test_a_state_that_cannot_be_saved_is_refused_before_the_first_round(run, leaf):
    with pytest.raises(TypeError, match=r"^state\['n'\] must be an array or a random key, got "):
        in_rounds(run, lambda: {"n": leaf}, lambda *_: pytest.fail("trained"), 2)


@pytest.mark.parametrize(
    "changed",
    [
        lambda x: {"x": x["x"].astype(jnp.int32)},
        lambda x: {"x": x["x"][:1]},
        lambda x: {"y": x["x"]},
        lambda x: {"x": x["x"], "y": x["x"]},
    ],
)
def test_a_state_that_could_not_be_read_back_is_refused_in_its_round(run, changed):
    with pytest.raises(ValueError, match=r"^advance must return state \['x'\] float32\[2\] in each round, got .+ 1\.$"):
        in_rounds(run, lambda: {"x": jnp.zeros(2)}, lambda x, i: (changed(x) if i == 1 else x, {}), 3)


@pytest.mark.parametrize("metrics", [{}, {"b": 1.0}, {"a": 1.0, "b": 1.0}, {"a": [1.0]}])
def test_metrics_unlike_those_of_the_first_round_are_refused(run, metrics):
    with pytest.raises(ValueError, match=r"^advance must return metrics a \[\] in each round, got .+ in round 1\.$"):
        in_rounds(run, lambda: jnp.zeros(2), lambda x, i: (x, metrics if i == 1 else {"a": 1.0}), 3)


def test_saving_takes_a_hundredth_of_the_time(run, monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr(rounds.time, "monotonic", lambda: clock[0])

    def slow_save(path, state, done):
        saves.append(len(done))
        clock[0] += 5.0

    monkeypatch.setattr(rounds, "_save", slow_save)

    def minute(state, number):
        clock[0] += 60.0
        return state, {}

    in_rounds(run, start, minute, 30)
    # The first save shows that one takes 5 s, hence one in 500 s from then on, and one at the end.
    assert saves == [1, 10, 19, 28, 30]


_SCRIPT = """
import sys, pathlib, jax.numpy as jnp, numpy as np
from mixjax.sweeps import HostRun, in_rounds
folder = pathlib.Path(sys.argv[1])
def advance(state, number):
    print(number, flush=True)
    return state * 1.5 + number, {"x": state}
run = HostRun(0, {}, None, folder, folder, lambda part: None)
state, metrics = in_rounds(run, lambda: jnp.arange(300000.0), advance, 40, at_least=0.0)
np.save(folder / "end.npy", np.append(np.asarray(state), metrics["x"].sum(axis=1)))
"""


def test_kill_9_at_any_point(tmp_path):
    rng = np.random.default_rng(0)
    folders = [_made(tmp_path / name) for name in ("whole", "killed")]
    subprocess.run([sys.executable, "-c", _SCRIPT, folders[0]], check=True, stdout=subprocess.DEVNULL)
    for kill in rng.integers(1, 12, size=3):
        process = subprocess.Popen([sys.executable, "-c", _SCRIPT, folders[1]], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(kill):
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.01))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    subprocess.run([sys.executable, "-c", _SCRIPT, folders[1]], check=True, stdout=subprocess.DEVNULL)
    np.testing.assert_array_equal(*(np.load(folder / "end.npy") for folder in folders))


def _made(folder):
    folder.mkdir()
    return folder


def test_a_state_of_more_than_ten_arrays_goes_on_in_their_order(run):
    def begin():
        return [jnp.full(n, n, jnp.float32) for n in range(1, 13)]

    def add_one(state, number):
        return [x + 1 for x in state], {"number": number}

    in_rounds(run, begin, add_one, 1)
    state, metrics = in_rounds(run, begin, add_one, 2)
    assert [x.tolist() for x in state] == [[n + 2.0] * n for n in range(1, 13)] and metrics["number"].tolist() == [0, 1]
