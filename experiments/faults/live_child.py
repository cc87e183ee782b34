"""Trains on a live mix in a process that may be killed anywhere; ``python -m experiments.faults live`` starts it.

Five domains of three kinds (arrays, a memory map, ArrayRecord files) are mixed by group DRO. Their losses fall with the
rows drawn of them, so that the mix moves. Parameters and the plan are in one checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 12
LAG = 6
EVERY = 5
SIZES = {"array": 400, "memory map": 300, "records": 150, "dataset": 37, "few": 7}


def make_data(folder: Path) -> None:
    """Writes the files of the domains."""
    from array_record.python.array_record_module import ArrayRecordWriter

    mapped = np.memmap(folder / "tokens", np.int32, "w+", shape=(SIZES["memory map"], 8))
    mapped[:] = rows_of("memory map")
    mapped.flush()
    writer = ArrayRecordWriter(str(folder / "records"), "group_size:1")
    for row in rows_of("records"):
        writer.write(row.tobytes())
    writer.close()


def rows_of(name: str) -> np.ndarray:
    """Returns the rows of a domain, int32 ``[size, 8]``."""
    return np.random.default_rng(list(SIZES).index(name)).integers(0, 50_000, (SIZES[name], 8)).astype(np.int32)


def decode(record: bytes) -> np.ndarray:
    """Makes a row of a record."""
    return np.frombuffer(record, np.int32)


def datasets_in(folder: Path) -> dict[str, Any]:
    """Opens the domains."""
    import grain

    records = grain.MapDataset.source(grain.sources.ArrayRecordDataSource(str(folder / "records")))
    return {
        "array": rows_of("array"),
        "memory map": np.memmap(folder / "tokens", np.int32, "r", shape=(SIZES["memory map"], 8)),
        "records": records.map(decode),
        "dataset": grain.MapDataset.source(rows_of("dataset")),
        "few": rows_of("few"),
    }


@dataclasses.dataclass
class Given:
    """Says how a process trains, and where it dies.

    Attributes:
        folder: takes checkpoints, the ledger and the rows that were read.
        run: a number of this start, in the names of files.
        start: the step of the checkpoint to go on from, 0 for none.
        stop: number of steps after which training ends.
        host: this process and the number of processes.
        workers: processes that read.
        prefetch: batches that they read ahead.
        reader: "", "a thread" or "to the device"; the latter two read further ahead than the lag.
        every: steps from a checkpoint to the next.
        order: "ledger first" or "checkpoint first".
        point: where the first process kills itself: "between" the two, "after the ledger" or "in the checkpoint".
        at: the first step in which it does so.
        delay: seconds from the start of a checkpoint to the kill.
        pause: seconds for which each step sleeps.
    """

    folder: Path
    run: int
    start: int
    stop: int
    host: tuple[int, int] = (0, 1)
    workers: int = 0
    prefetch: int = 0
    reader: str = ""
    every: int = EVERY
    order: str = "ledger first"
    point: str = ""
    at: int = 0
    delay: float = 0.0
    pause: float = 0.0


def train(given: Given) -> None:
    """Trains from a checkpoint, if there is one."""
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    import mixjax
    from mixjax import live

    logging.getLogger("absl").setLevel(logging.ERROR)
    # Many short runs compile the same programs.
    jax.config.update("jax_compilation_cache_dir", str(given.folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rule = mixjax.rules.floor(mixjax.rules.group_dro(0.05), 0.1)
    rates = jnp.array([0.002, 0.004, 0.001, 0.02, 0.003])

    @jax.jit
    def step(drawn, rule_state, counts):
        drawn = drawn + counts
        return drawn, rule.update(rule_state, counts=counts, losses=1.0 + jnp.exp(-rates * drawn))

    datasets = datasets_in(given.folder.parent / "data")
    plan = live.Plan(SIZES, BATCH_SIZE, np.ones(len(SIZES)), lag=LAG, host=given.host)
    feedback = live.Feedback(plan)
    state = (jnp.zeros(len(SIZES)), rule.init(plan.first_weights))
    # Only one process may tidy up the folder of checkpoints, where another one writes.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, read_only=given.host[0] > 0)
    manager = ocp.CheckpointManager(given.folder / "checkpoints", options=options)
    if given.start:
        wanted = {"state": ocp.args.StandardRestore(state), "plan": ocp.args.JsonRestore()}
        found = manager.restore(given.start, args=ocp.args.Composite(**wanted))
        state = found["state"]
        plan.set_state(found["plan"])

    def save(number):
        saved = {"state": ocp.args.StandardSave(tuple(state)), "plan": ocp.args.JsonSave(feedback.get_state())}
        _wait_for_others(given, number)
        if given.point == "in the checkpoint" and number > given.at:
            _die_after_start(given)
        manager.save(number, args=ocp.args.Composite(**saved))
        manager.wait_until_finished()

    index = given.host[0]
    log = open(_log_of(given, index), "w")  # noqa: SIM115
    with live.Ledger(given.folder / "ledger.jsonl", plan) as ledger:
        # A run that was killed after its last checkpoint only has the ledger to complete.
        mixed = live.mix(datasets, plan, given.workers, given.prefetch) if plan.step < given.stop else None
        for element in _elements(given, mixed, plan, feedback):
            number = int(element["step"])
            state = step(*state, np.asarray(element["counts"], np.float32))
            feedback.send(number, state[1].weights)
            note(log, element)
            saves = (number + 1) % given.every == 0 and index == 0
            if given.order == "ledger first":
                ledger.write(element)
            elif saves:
                save(number + 1)
            if given.point == "between" and number >= given.at and saves:
                os.kill(os.getpid(), signal.SIGKILL)
            if given.order != "ledger first":
                ledger.write(element)
            elif saves:
                save(number + 1)
            if given.point == "after the ledger" and number >= given.at and index == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(given.pause)
            if number >= given.stop - 1:
                break


def _elements(given, mixed, plan, feedback):
    """Reads the mix in one of three ways, and goes on after a worker was killed."""
    import grain.experimental
    import jax

    if mixed is None:
        return
    if given.reader == "a thread":
        mixed = grain.experimental.ThreadPrefetchIterDataset(mixed, prefetch_buffer_size=LAG + 4)
    elif given.reader == "to the device":
        mixed = grain.experimental.device_put(
            mixed, jax.devices()[0], cpu_buffer_size=LAG + 4, device_buffer_size=LAG + 4
        )
    while True:
        iterator = iter(mixed)
        try:
            yield from iterator
            return
        except RuntimeError as error:
            if "a worker of the mix died" not in str(error):
                raise
            (given.folder / f"worker_died_{given.run:03d}").touch()
            iterator.close()
            plan.set_state(feedback.get_state())


def _log_of(given, index):
    return given.folder / f"rows_{given.start:05d}_{given.run:03d}_{index}_of_{given.host[1]}.jsonl"


def _wait_for_others(given, number):
    """Waits until all processes have trained as far; sums over their devices would do so in a real step."""
    for path in (_log_of(given, other) for other in range(given.host[1])):
        while not path.exists() or path.read_bytes().count(b"\n") < number - given.start:
            time.sleep(0.005)


def _die_after_start(given):
    """Kills this process a few milliseconds after a checkpoint was begun."""

    def wait_and_die():
        while not list((given.folder / "checkpoints").glob("*tmp*")):
            time.sleep(0.0002)
        time.sleep(given.delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_die, daemon=True).start()


def note(log, element) -> None:
    """Writes down what this process read in a step; the operating system keeps it if the process is killed."""
    line = {
        "step": int(element["step"]),
        "ids": np.asarray(element["domain_ids"]).tolist(),
        "rows": np.asarray(element["rows"]).tolist(),
        "values": [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in np.asarray(element["value"])],
    }
    log.write(json.dumps(line) + "\n")
    log.flush()
