"""When sweeps save, and how those that were stopped or killed go on from what is on disk."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from mixjax.sweeps.checkpoints import Chunks
from mixjax.sweeps.programs import Program
from mixjax.sweeps.saving import Pauses, Saver, pauses
from tests.sweeps.small_sweep import sweep


def test_a_sweep_goes_on_from_the_chunks_it_finds(tmp_path, monkeypatch, save_always):
    whole, calls = sweep(), []

    def stop(done, total):
        calls.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, callback=stop)
    assert len(list(tmp_path.glob("chunk_*"))) == 3
    run = []
    call = Program.run
    monkeypatch.setattr(Program, "run", lambda *arguments: run.append(1) or call(*arguments))
    again = sweep(tmp_path, callback=lambda done, total: calls.append(done))
    np.testing.assert_array_equal(again.error, whole.error)
    assert len(run) == 2 and calls == [2, 4, 6, 6, 8, 10]
    monkeypatch.setattr(Program, "run", lambda *arguments: pytest.fail("nothing is left to compute"))
    np.testing.assert_array_equal(sweep(tmp_path, chunk=np.int64(2)).error, whole.error)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_chunks_that_wait_for_the_next_save_are_saved_when_a_sweep_is_stopped(tmp_path, error):
    def stop(done, total):
        if done == 8:
            raise error

    with pauses(share=1e-9, longest=1e9), pytest.raises(error):
        sweep(tmp_path, callback=stop)
    assert len(list(tmp_path.glob("chunk_*"))) == 2  # the first one was written at once, the others together
    assert sweep(tmp_path).attrs["num_computed"] == 2


def test_a_save_that_fails_at_the_end_does_not_hide_why_the_sweep_was_stopped(caplog):
    def write(chunks):
        raise OSError("disk full")

    saver = Saver(types.SimpleNamespace(write=write), Pauses(longest=1e9), clock=lambda: 0.0)
    saver._last_seconds = 1e9
    with pytest.raises(KeyboardInterrupt), saver.flushed():
        saver.add(0, {})
        raise KeyboardInterrupt
    assert "could not be saved" in caplog.text
    with pytest.raises(OSError, match="disk full"), saver.flushed():
        pass


CHILD = """
import sys, time
import jax
jax.config.update("jax_num_cpu_devices", 8)
from mixjax.sweeps.saving import pauses
from tests.sweeps.small_sweep import sweep
with pauses(longest=0.0):
    sweep(sys.argv[1], callback=lambda done, total: time.sleep(0.3))
"""


def test_kill_9_and_the_same_call_again_give_the_result_of_a_run_without_a_break(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
    }
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("chunk_000000002.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(BlockingIOError, match="in use by another process"):  # while the first one lives
        sweep(tmp_path)
    with pytest.raises(BlockingIOError):  # before anything in the folder is compared or deleted
        Chunks(tmp_path, {"another": "run"})
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    found = len(list(tmp_path.glob("chunk_?????????.npz")))
    assert 2 <= found < 5
    np.testing.assert_array_equal(sweep(tmp_path).error, sweep().error)


def test_short_chunks_are_saved_together_and_saving_takes_its_share_of_the_time_at_most():
    now, writes = [0.0], []

    def write(chunks, took):
        writes.append((now[0], list(chunks)))
        now[0] += took

    def saver_of(seconds):
        return Saver(types.SimpleNamespace(write=lambda chunks: write(chunks, seconds)), clock=lambda: now[0])

    saver = saver_of(0.006)
    for first in range(100):
        now[0] += 0.01
        saver.add(first, {})
    saver.flush()
    assert writes[0] == (0.01, [0])  # whether the folder can be written shows at once
    assert [first for _, chunks in writes for first in chunks] == list(range(100))
    assert 0.006 * len(writes) < 2 * Pauses().share * now[0] and len(writes) == 3

    saver = saver_of(10.0)
    writes.clear()
    for first in range(20):  # a slow disk: 1 % would be every 1000 s
        now[0] += 310.0
        saver.add(first, {})
    assert [len(chunks) for _, chunks in writes] == [1] + [2] * 9


def test_pauses_hold_inside_their_block_only():
    def num_saves():
        writes, now = [], [1.0]

        def write(chunks):
            writes.append(chunks)
            now[0] += 1.0

        saver = Saver(types.SimpleNamespace(write=write), clock=lambda: now[0])
        for first in range(10):
            now[0] += 1.0
            saver.add(first, {})
        return len(writes)

    assert num_saves() == 1
    with pauses(longest=0.0):
        assert num_saves() == 10
        with pauses(share=0.5):  # keeps the longest pause of the block around it
            assert num_saves() == 10
    with pauses(share=0.5):
        assert num_saves() == 5
    assert num_saves() == 1


@pytest.mark.parametrize(("seconds", "pause"), [(0.01, 1.0), (5.0, 500.0), (60.0, 600.0)])
def test_slow_saves_keep_to_a_hundredth_of_the_time_up_to_ten_minutes(seconds, pause):
    saves, now = [], [1.0]

    def write(*_):
        saves.append(now[0])
        now[0] += seconds

    saver = Saver(types.SimpleNamespace(write_carry=write), clock=lambda: now[0])
    saver.add_carry(0, 1, dict)
    for after, count in ((0.9 * pause, 1), (0.2 * pause, 2)):
        now[0] += after
        saver.add_carry(0, 2, dict)
        assert len(saves) == count


def test_without_a_store_nothing_is_kept():
    saver = Saver(None)
    saver.add(0, {"x": np.zeros(1)})
    saver.add_carry(0, 1, lambda: pytest.fail("copied for nothing"))
    saver.shrink(4)
    saver.flush()
    assert saver.find_carry(0) is None
