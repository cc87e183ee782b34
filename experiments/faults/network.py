"""Puts processes into network namespaces, as hosts of their own, and cuts one of them off."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.faults.command import COMMAND, ROOT, Row, arrays, chunks, same

# Addresses inside these namespaces only: nothing joins them to the machine's own network.
_SUBNET, _PORT = "10.77.0", 5077

HOST = """
import sys, time
import jax
rank, num, address, out, pause = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, num, rank, heartbeat_timeout_seconds=10)
from mixjax.runner import configs, experiment
from mixjax.sweeps.saving import pauses
with pauses(longest=0.0):
    experiment.run(configs.load(*sys.argv[6:7], sys.argv[7:]), out=out, callback=lambda *args: time.sleep(pause))
"""


class Network:
    """Makes namespaces that are joined by a bridge in a namespace of its own.

    Args:
        num: number of hosts.
    """

    def __init__(self, num: int):
        """Names the namespaces."""
        prefix = f"mixjax{os.getpid()}"
        self.hosts, self._middle = [f"{prefix}_{i}" for i in range(num)], f"{prefix}_middle"

    def __enter__(self) -> "Network":
        """Makes the namespaces.

        Raises:
            subprocess.CalledProcessError: that is not permitted; ``stderr`` says why.
        """
        try:
            _ip("netns", "add", self._middle)
            _ip("-n", self._middle, "link", "add", "bridge0", "type", "bridge")
            _ip("-n", self._middle, "link", "set", "bridge0", "up")
            name = os.uname().nodename
            for i, host in enumerate(self.hosts):
                _ip("netns", "add", host)
                peer = ("type", "veth", "peer", "name", "eth0", "netns", host)
                _ip("-n", self._middle, "link", "add", f"port{i}", *peer)
                _ip("-n", self._middle, "link", "set", f"port{i}", "master", "bridge0", "up")
                _ip("-n", host, "addr", "add", f"{_SUBNET}.{i + 1}/24", "dev", "eth0")
                _ip("-n", host, "link", "set", "eth0", "up")
                _ip("-n", host, "link", "set", "lo", "up")
                # What the machine's name stands for in this namespace: JAX's collectives listen there.
                hosts = Path("/etc/netns") / host / "hosts"
                hosts.parent.mkdir(parents=True)
                hosts.write_text(f"127.0.0.1 localhost\n{_SUBNET}.{i + 1} {name}\n")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        """Removes the namespaces."""
        for name in [*self.hosts, self._middle]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            folder = Path("/etc/netns") / name
            (folder / "hosts").unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()

    def cut(self, host: int, state: str = "down") -> None:
        """Cuts the cable of a host, or with "up" joins it again."""
        _ip("-n", self._middle, "link", "set", f"port{host}", state)

    def start(self, out: Path, pause: float) -> list[subprocess.Popen]:
        """Starts the command on all hosts; each waits for some seconds after a chunk."""
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        arguments = [str(len(self.hosts)), f"{_SUBNET}.1:{_PORT}", str(out), str(pause), COMMAND[1], *COMMAND[3::2]]
        return [
            subprocess.Popen(
                ["ip", "netns", "exec", host, sys.executable, "-c", HOST, str(rank), *arguments],
                env={**os.environ, "PYTHONPATH": paths},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, host in enumerate(self.hosts)
        ]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def cut_off(folder: Path, num: int, seconds: float) -> Row:
    """Cuts the last of several hosts off for some seconds in the middle of a sweep, and starts all again if they end.

    Args:
        folder: the folder that all runs write below, which all hosts see.
        num: number of hosts.
        seconds: how long the host is cut off.

    Returns:
        The row of the table.
    """
    name = f"one of {num} hosts cut off for {seconds:.0f} s"
    try:
        network = Network(num).__enter__()
    except (OSError, subprocess.CalledProcessError) as error:
        return Row(name, 0, f"not run: {getattr(error, 'stderr', None) or error}".strip(), "unknown")
    try:
        alone, out = folder / f"alone_{num}_{seconds:.0f}", folder / f"cut_{num}_{seconds:.0f}"
        if any(_ends(network.start(alone, 0.0))):
            return Row(name, 0, "the undisturbed hosts failed", "unknown")
        processes = network.start(out, 0.5)
        while len(chunks(out)) < num and processes[0].poll() is None:
            time.sleep(0.01)
        begin = time.perf_counter()
        network.cut(num - 1)
        time.sleep(seconds)
        network.cut(num - 1, "up")
        codes = _ends(processes)
        took, before = time.perf_counter() - begin, chunks(out)
        if not any(codes):
            said = f"all went on, and ended {took:.0f} s after the cut"
        else:
            said = f"all ended with an error, the last one {took:.0f} s after the cut; {len(before)} chunks on disk; "
            said += "all started again, and only missing chunks were computed"
            if not all(codes) or any(_ends(network.start(out, 0.0))):
                return Row(name, 1, said, f"exit codes {codes}, and not all ended well when started again")
        return Row(name, 1, said, "nothing" if same(arrays(out), arrays(alone)) else "the result differs")
    finally:
        network.__exit__()


def _ends(processes: Sequence[subprocess.Popen]) -> list[int]:
    """Waits for the end of all processes; returns their exit codes."""
    try:
        for process in processes:
            process.communicate(timeout=300)
    finally:
        # Where one does not end, none may stay behind in its namespace.
        for process in processes:
            process.kill()
    return [process.returncode for process in processes]
