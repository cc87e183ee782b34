"""Several hosts, as real processes that talk over loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import mixjax
from mixjax.sweeps.hosts import Hosts
from tests.sweeps.small_sweep import train

HOST = """
import sys, time
import jax
rank, num, port, folder, pause = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", num, rank, heartbeat_timeout_seconds=10)
import numpy as np
from mixjax.sweeps.saving import pauses
from tests.sweeps.test_hosts import sweep

def callback(done, total):
    time.sleep(abs(pause))
    if rank == 1 and pause < 0:
        raise RuntimeError("lost the plot")

with pauses(longest=0.0):
    result = sweep(folder, callback=callback)
np.save(f"{folder}/result_{rank}.npy", result.error.values)
"""


def sweep(folder=None, **changes):
    arguments = {"seeds": 7, "axes": {"scale": [1.0, 2.0, 3.0]}, "data": jnp.float32(1.0), "chunk": 2} | changes
    return mixjax.sweep(train, checkpoint=folder, **arguments)


@pytest.fixture(name="start")
def _start(tmp_path):
    processes = []

    def start(num, pause=0.0):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            port = str(listener.getsockname()[1])
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        for rank in range(num):
            arguments = [sys.executable, "-c", HOST, str(rank), str(num), port, str(tmp_path), str(pause)]
            log = (tmp_path.parent / f"{tmp_path.name}_{rank}.log").open("w")
            processes.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log))
        return processes[-num:]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_every_host_computes_its_share_and_all_see_one_result(start, tmp_path, num):
    for process in start(num):
        assert process.wait(timeout=180) == 0, (tmp_path.parent / f"{tmp_path.name}_0.log").read_text()
    expected = sweep().error
    for rank in range(num):
        np.testing.assert_array_equal(np.load(tmp_path / f"result_{rank}.npy"), expected)
    assert len(list(tmp_path.glob("chunk_*"))) == 11


@pytest.mark.slow
def test_a_host_that_dies_loses_no_chunk_that_was_written(start, tmp_path):
    first, second = start(2, pause=0.3)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("chunk_?????????.npz"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    assert first.wait(timeout=180) != 0  # it does not wait for ever
    log = (tmp_path.parent / f"{tmp_path.name}_0.log").read_text()
    assert log.count("host 1 has ended") == 1 and "the same command on all hosts goes on" in log
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("chunk_?????????.npz")}
    assert 4 <= len(before) < 11
    for process in start(2):
        assert process.wait(timeout=180) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "result_0.npy"), sweep().error)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before  # none was computed again


@pytest.mark.slow
def test_an_error_of_one_host_is_an_error_of_all_and_costs_no_chunk(start, tmp_path):
    begin = time.monotonic()
    for process in start(2, pause=-0.01):
        assert process.wait(timeout=180) == 1
    assert time.monotonic() - begin < 60  # no barrier's timeout
    first, second = ((tmp_path.parent / f"{tmp_path.name}_{rank}.log").read_text() for rank in range(2))
    assert "RuntimeError: host 1 failed, see its log" in first and "RuntimeError: lost the plot" in second
    assert len(list(tmp_path.glob("chunk_?????????.npz"))) >= 6  # the first host's share, at least
    for process in start(2):
        assert process.wait(timeout=180) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "result_1.npy"), sweep().error)


@pytest.mark.slow
def test_another_call_is_refused_on_all_hosts(start, tmp_path):
    mixjax.sweep(train, checkpoint=tmp_path, seeds=1, axes={"scale": [1.0]}, data=jnp.float32(1.0))
    for rank, process in enumerate(start(2)):
        assert process.wait(timeout=180) == 1
        log = (tmp_path.parent / f"{tmp_path.name}_{rank}.log").read_text()
        assert ("host 0 failed, see its log" if rank else "ChangedError") in log


def test_several_hosts_need_a_folder(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match="give a checkpoint folder that all see"):
        sweep()


def test_each_item_is_the_share_of_one_host():
    shares = [Hosts(index=index, count=3).share(range(8)) for index in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_one_host_raises_its_own_error_and_asks_nobody():
    hosts = Hosts.here()
    assert (hosts.index, hosts.count, hosts.is_first, hosts.several) == (0, 1, True, False)
    assert hosts.from_first(np.array([True, False])).tolist() == [True, False]
    with pytest.raises(KeyError), hosts.together():
        raise KeyError("mine")
