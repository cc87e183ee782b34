"""Does what schedulers, memory limits and users do to a command: signals, kills for memory, full streams, threads."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax.numpy as jnp

import mixjax
from experiments.faults.command import CHILD, COMMAND, ROOT, Row
from mixjax.sweeps import Segments
from mixjax.sweeps.devices import control_groups
from mixjax.sweeps.saving import pauses

_LIMIT = 800_000_000

CARRIES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from mixjax.sweeps import devices
if sys.argv[2] == "wrong":
    devices.free_bytes = lambda given: 1e12
from experiments.faults.limits import carries
print(carries(sys.argv[1]))
"""


def carries(folder: str) -> int:
    """Sweeps over 16 runs that carry 24 MB each; returns the number of runs in a chunk."""

    def advance(carry, hparams, data):
        return jnp.sin(carry) * hparams["a"], {"m": carry[:1][None]}

    train = Segments(lambda key, hparams, data: jnp.ones(6_000_000), advance, num=3)
    with pauses(longest=0.0):
        return mixjax.sweep(train, seeds=16, axes={"a": [1.0]}, checkpoint=folder).attrs["chunk"]


@contextmanager
def limited_group(limit: int) -> Iterator[Path]:
    """Makes a control group below the process's own, and limits its memory.

    Raises:
        OSError: that is not permitted, or there is none.
    """
    found = next(iter(control_groups()), None)
    if found is None:
        raise OSError("no control group")
    group, files = found
    group = group / f"mixjax_{os.getpid()}"
    group.mkdir()
    try:
        (group / files.limit).write_text(str(limit))
        yield group
    finally:
        group.rmdir()


def killed_for_memory(folder: Path) -> Row:
    """Sweeps in a control group that is too small, with and without a wrong number of free bytes."""
    name, told, kills = "killed for memory in a control group of 0.8 GB", "", 0
    try:
        for free in ("right", "wrong"):
            for _ in range(6):
                with limited_group(_LIMIT) as group:
                    done = _in_group(group, folder / free, free)
                kills += done.returncode == -9
                warned = [line.split(": ", 1)[1] for line in done.stderr.splitlines() if "last attempt" in line]
                told += "".join(f'; the next start: "{line}"' for line in warned)
                if done.returncode == 0:
                    break
            else:
                return Row(name, kills, f"never ended; {told}", "the result")
            if free == "right":
                told += (
                    f"16 runs that carry 24 MB each: chunks of {done.stdout.strip()}, no kill; told that there were "
                )
                told += "1000 GB: killed"
    except OSError as error:
        return Row(name, 0, f"not run: {error}", "unknown")
    return Row(name, kills, f"{told}; ended with chunks of {done.stdout.strip()}", "nothing")


def _in_group(group: Path, folder: Path, free: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    # The shell joins the group before it becomes Python.
    script = f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"'
    return subprocess.run(
        ["sh", "-c", script, sys.executable, "-c", CARRIES, str(folder), free],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def two_threads(folder: Path) -> Row:
    """Starts one sweep in two threads, on one folder."""
    begun, errors = threading.Event(), []

    def train(key, hparams, data):
        return {"x": hparams["a"]}

    def wait(done, total):
        begun.set()
        second.join(60)

    def again():
        begun.wait(60)
        try:
            mixjax.sweep(train, seeds=2, axes={"a": [1.0]}, chunk=1, checkpoint=folder)
        except BlockingIOError as error:
            errors.append(str(error).replace(str(folder), "DIR"))

    second = threading.Thread(target=again)
    second.start()
    result = mixjax.sweep(train, seeds=2, axes={"a": [1.0]}, chunk=1, checkpoint=folder, callback=wait)
    well = len(errors) == 1 and result.x.shape == (1, 2)
    return Row("one sweep in two threads", 1, f'the second one: "{"".join(errors)}"; the first went on', _lost(well))


def full_stream() -> Row:
    """Gives commands whose standard output is a full disk, or closed."""
    said = []
    for words in (["list"], ["--help"], [*COMMAND, "--dry-run"]):
        with open("/dev/full", "w") as full:
            done = _command(words, stdout=full)
        closed = _command(words, preexec_fn=lambda: os.close(1))
        said.append((done.returncode, done.stderr.strip().splitlines()[-1], closed.returncode))
    (code, line, closed), well = said[0], len(set(said)) == 1 and "Traceback" not in str(said)
    return Row("standard output on a full disk, or closed", 6, f'exit code {code}, "{line}"; {closed}', _lost(well))


def _command(words, **arguments):
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", CHILD, *words]
    return subprocess.run(
        command, env=environment, stderr=subprocess.PIPE, text=True, timeout=300, check=False, **arguments
    )


def _lost(well: bool) -> str:
    return "nothing" if well else "see the left"
