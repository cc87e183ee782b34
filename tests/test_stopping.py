"""SIGTERM and SIGUSR1 in the middle of a sweep: what was done is saved, and the same call goes on."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax import stopping
from mixjax.stopping import Preempted, check_preempted, is_preempted, preemptible
from mixjax.sweeps import HostLoop, Segments, in_rounds
from mixjax.sweeps.programs import Program
from mixjax.sweeps.saving import pauses


def send(number):
    """Sends a signal to this process, and waits until it has been noticed."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not is_preempted() and time.monotonic() < deadline:
        time.sleep(0.001)


def plain(key, hparams, data):
    return {"x": hparams["rate"] * jnp.arange(3.0)}


def advance(carry, hparams, data):
    return carry * hparams["rate"], {"x": carry[None]}


def in_a_loop(run):
    def one_round(state, number):
        ROUNDS.append(number)
        return state * run.hparams["rate"], {"x": state}

    return in_rounds(run, lambda: jnp.float32(1.0), one_round, num=4)[1]


ROUNDS = []
CUT = Segments(lambda key, hparams, data: jnp.float32(1.0), advance, 4)
# Each with the number of runs after which the signal comes, and that is saved then.
KINDS = {"chunks": (plain, 2.0), "segments": (CUT, 3.0), "rounds": (HostLoop(in_a_loop), 1.5)}
REPORTS = {"chunks": [2, 4], "segments": [2, 3.5], "rounds": [1, 1.75]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_call_goes_on_from_where_a_signal_has_stopped_it(tmp_path, number, kind):
    train, part = KINDS[kind]
    sizes = {} if kind == "rounds" else {"chunk": 2, "devices": None}

    def sweep(folder, callback=None):
        return mixjax.sweep(train, seeds=2, axes={"rate": [0.5, 2.0]}, checkpoint=folder, callback=callback, **sizes)

    whole, done_before = sweep(tmp_path / "undisturbed"), []
    ROUNDS.clear()
    # Without a signal nothing but the first chunk would be saved.
    with pauses(share=1e-9, longest=1e9), preemptible(), pytest.raises(Preempted) as stop:
        sweep(tmp_path / "stopped", lambda done, total: send(number) if done == part else None)
    assert stop.value.code == 128 + number and not is_preempted()
    again = sweep(tmp_path / "stopped", lambda done, total: done_before.append(done))
    np.testing.assert_array_equal(again.x, whole.x)
    # No part is computed twice: the first report counts finished runs, the next follows on that of the signal.
    assert done_before[:2] == REPORTS[kind] and (kind != "rounds" or len(ROUNDS) == 16)


@pytest.mark.parametrize("kind", ["chunks", "segments"])
def test_a_signal_in_the_last_chunk_stops_what_comes_next_and_not_what_is_done(tmp_path, kind, monkeypatch):
    def sweep(folder, callback=None):
        return mixjax.sweep(
            KINDS[kind][0], seeds=2, axes={"rate": [0.5]}, chunk=2, checkpoint=tmp_path / folder, callback=callback
        )

    def send_at_the_end(done, total):
        if done == total:
            send(signal.SIGTERM)

    with preemptible():
        found = sweep("first", send_at_the_end)
    assert np.isfinite(found.x).all() and not is_preempted()
    with preemptible():
        # What is complete is returned all the same, and what is not compiles nothing.
        np.testing.assert_array_equal(sweep("first").x, found.x)
        with monkeypatch.context() as patch, pytest.raises(Preempted) as stop:
            patch.setattr(Program, "compile", lambda self: pytest.fail("compiled"))
            sweep("second")
    assert stop.value.number == signal.SIGTERM
    with preemptible():
        np.testing.assert_array_equal(sweep("second").x, found.x)


def test_a_second_sigterm_ends_at_once_also_where_a_block_lies_between(monkeypatch):
    codes, ended = [], threading.Event()
    monkeypatch.setattr(stopping.os, "_exit", lambda code: (codes.append(code), ended.set()))
    with preemptible():
        send(signal.SIGTERM)
    with preemptible():
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.wait(10) and codes == [128 + signal.SIGTERM]
        with pytest.raises(Preempted):
            check_preempted()


@pytest.mark.parametrize("ended_by", [None, KeyError])
@pytest.mark.parametrize(("seconds", "is_stopped"), [(0, True), (599, True), (601, False)])
def test_a_signal_is_handed_on_for_ten_minutes(monkeypatch, ended_by, seconds, is_stopped):
    codes, now = [], time.monotonic()
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    with contextlib.suppress(KeyError), preemptible():
        send(signal.SIGTERM)
        if ended_by is not None:
            raise ended_by
    # One outside of blocks neither notices nor forgets it.
    check_preempted()
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now + seconds)
    with preemptible():
        assert is_preempted() == is_stopped
        if is_stopped:
            with pytest.raises(Preempted):
                check_preempted()
        else:
            # It is the first of this block, and saves.
            monkeypatch.undo()
            monkeypatch.setattr(stopping.os, "_exit", codes.append)
            send(signal.SIGTERM)
            with pytest.raises(Preempted):
                check_preempted()
    with preemptible():
        assert not is_preempted() and not codes


def test_a_second_sigterm_ends_at_once_also_during_a_long_call(monkeypatch):
    codes, long_call = [], threading.Event()

    def ended(code):
        codes.append(code)
        long_call.set()

    monkeypatch.setattr(stopping.os, "_exit", ended)
    with preemptible():
        # SIGUSR1 tells that the time is nearly up, and the first SIGTERM that it is: there still is a grace time.
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            send(number)
        assert not codes
        os.kill(os.getpid(), signal.SIGTERM)
        assert long_call.wait(10) and codes == [128 + signal.SIGTERM]
        with pytest.raises(Preempted):
            check_preempted()


def test_signals_are_as_before_after_the_block():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    num_threads = threading.active_count()
    with pytest.raises(Preempted), preemptible():
        assert signal.getsignal(signal.SIGTERM) not in before
        send(signal.SIGTERM)
        check_preempted()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert threading.active_count() == num_threads
    check_preempted()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with preemptible():
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_nothing_changes():
    found = []

    def inside():
        with preemptible():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_the_signals_of_forked_processes_are_their_own():
    with preemptible():
        for _ in range(20):
            # As a pool ends its workers; the second SIGTERM would end this process.
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            worker.start()
            worker.terminate()
            worker.join(10)
            assert worker.exitcode == -signal.SIGTERM and not is_preempted()


def test_a_signal_inside_an_inner_block_is_not_forgotten_at_its_end():
    with preemptible():
        with preemptible():
            send(signal.SIGTERM)
        with pytest.raises(Preempted):
            check_preempted()
    assert not is_preempted()
