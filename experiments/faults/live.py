"""Kills training on a live mix in every way, and compares each batch and the ledger with an undisturbed run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from experiments.faults.command import Row
from experiments.faults.live_child import BATCH_SIZE, EVERY, SIZES, Given, make_data, train
from mixjax.live import read_ledger

POINTS = {
    "SIGKILL of a main process at random moments": "",
    "SIGKILL of a worker": "",
    "killed between the ledger's line and the checkpoint": "between",
    "killed between the checkpoint and the ledger's line": "between",
    "killed in the middle of a line of the ledger": "after the ledger",
    "killed in the middle of a checkpoint": "in the checkpoint",
}


@dataclasses.dataclass
class Told:
    """Gathers what became of one kind of fault."""

    times: int = 0
    batches: int = 0
    hosts: Counter = dataclasses.field(default_factory=Counter)
    events: Counter = dataclasses.field(default_factory=Counter)
    lost: list[str] = dataclasses.field(default_factory=list)


class LiveJudge:
    """Disturbs training on a live mix.

    Attributes:
        folder: the folder that all runs write below.
        steps: number of steps of a run.
        told: what became of each kind of fault.
    """

    def __init__(self, folder: Path, steps: int = 60, seed: int = 0):
        """Trains undisturbed, in one process without workers."""
        self.folder, self.steps, self._draw = folder, steps, random.Random(seed)
        # A process that has imported everything, and has no threads, forks the others: each is spared the imports.
        self._processes = get_context("forkserver")
        self._processes.set_forkserver_preload(
            ["jax.numpy", "grain.experimental", "orbax.checkpoint", "mixjax.live.mixed", "mixjax.rules", "xarray"]
        )
        (folder / "data").mkdir(parents=True)
        make_data(folder / "data")
        self.told = {name: Told() for name in POINTS}
        self._course, self._run = 0, 0
        whole = self._new_course()
        self._finish(self._start(whole, 1, start=0))
        self.want = {line["step"]: line for path in whole.glob("rows_*") for line in _lines(path)}
        if sorted(self.want) != list(range(steps)):
            raise RuntimeError("the undisturbed run did not end")

    def kill(self, times: int) -> None:
        """Kills training until it was killed ``times`` times, each time going on from the last checkpoint."""
        course, kinds = self._new_course(), list(POINTS)
        while (done := sum(told.times for told in self.told.values())) < times:
            kind = kinds[done % len(kinds)]
            start = newest_checkpoint(course)
            if start + EVERY >= self.steps:
                self._ends_well(course)
                course, start = self._new_course(), 0
            self._disturb(course, kind, start)
            print(f"{done + 1} of {times}: {kind}; lost: {self.told[kind].lost or 'nothing'}", flush=True)
        self._ends_well(course)

    def _disturb(self, course, kind, start):
        """Starts 1, 2 or 4 processes, kills one of them in a way, ends the others, and looks at what they wrote."""
        draw, told = self._draw, self.told[kind]
        num_hosts = draw.choice((1, 1, 1, 1, 2, 2, 4))
        needs_workers = kind == "SIGKILL of a worker"
        # Starting workers takes longer than all else, so most runs have none.
        workers = draw.choice((0, 0, 0, 1, 2, 3)) if num_hosts == 1 else draw.choice((0, 0, 1))
        arguments = {
            "workers": max(workers, int(needs_workers)),
            "prefetch": draw.randint(1, 8),
            "reader": draw.choice(("", "a thread", "to the device")),
            "order": "checkpoint first" if kind.endswith("the ledger's line") else "ledger first",
            "point": POINTS[kind],
            "at": start + draw.randint(0, 2 * EVERY),
            "delay": draw.choice((0.0, 0.003, 0.01, 0.03)),
            "pause": 0.02,
            "stop": min(start + 3 * EVERY, self.steps) if needs_workers else self.steps,
        }
        processes = self._start(course, num_hosts, start=start, **arguments)
        victim = draw.randrange(num_hosts)
        if not POINTS[kind]:
            # From the first step on, or earlier.
            self._wait_for_steps(course, processes, draw.choice((0, 1, 1, 1)))
            time.sleep(draw.uniform(0, 0.5))
            pid = self._worker_of(processes[victim]) if needs_workers else processes[victim].pid
            if pid is None or not processes[victim].is_alive():
                _end(processes)
                self._check(course, told)
                return
            os.kill(pid, signal.SIGKILL)
        if needs_workers:
            # The process itself goes on, by a new iterator.
            self._finish(processes)
            told.events["went on in the same process"] += (course / f"worker_died_{self._run:03d}").exists()
            told.times += 1
        else:
            # The first process writes checkpoints and the ledger.
            dying = processes[0] if POINTS[kind] else processes[victim]
            dying.join(300)
            killed = dying.exitcode == -signal.SIGKILL
            _end(processes)
            told.times += killed
        told.hosts[num_hosts] += 1
        if kind.endswith("a line of the ledger"):
            _cut_last_line(course / "ledger.jsonl")
        if kind.endswith("a checkpoint"):
            unfinished = list((course / "checkpoints").glob("*tmp*"))
            told.events["left an unfinished checkpoint"] += bool(unfinished)
        self._check(course, told)

    def _ends_well(self, course):
        """Trains to the end, and compares all batches and the ledger."""
        self._finish(self._start(course, self._draw.choice((1, 2, 4)), start=newest_checkpoint(course)))
        told = next(iter(self.told.values()))
        self._check(course, told, is_ended=True)

    def _check(self, course, told, is_ended=False):
        """Compares every batch that was ever handed out, and the steps and rows of the ledger."""
        found: dict[int, dict[str, list]] = {}
        for path in sorted(course.glob("rows_*")):
            host, num_hosts = (int(path.stem.split("_")[place]) for place in (3, 5))
            for line in _lines(path):
                want = self.want[line["step"]]
                if any(line[name] != want[name][host::num_hosts] for name in ("ids", "rows", "values")):
                    told.lost.append(f"step {line['step']} differs")
                whole = found.setdefault(line["step"], {n: [None] * BATCH_SIZE for n in ("ids", "rows", "values")})
                for name, values in whole.items():
                    values[host::num_hosts] = line[name]
        equal = sum(_sha(step, batch) == _sha(step, self.want[step]) for step, batch in found.items())
        told.batches += equal
        if is_ended and (equal != self.steps or len(found) != self.steps):
            told.lost.append(f"{self.steps - equal} batches are missing")
        ledger = course / "ledger.jsonl"
        if ledger.exists() and b"counts" in ledger.read_bytes():
            told.lost += self._ledger_faults(ledger, is_ended)

    def _ledger_faults(self, path, is_ended):
        """Returns what is wrong with a ledger: gaps, steps written twice, other rows than those drawn."""
        table, end, faults = read_ledger(path), 0, []
        for step, num_steps, counts in zip(table.step.values, table.num_steps.values, table.counts.values, strict=True):
            if step - num_steps + 1 != end:
                faults.append(f"the ledger goes from step {end - 1} to {step - num_steps + 1}")
            end = int(step) + 1
            ids = [domain for each in range(end - int(num_steps), end) for domain in self.want[each]["ids"]]
            if [ids.count(domain) for domain in range(len(SIZES))] != counts.tolist():
                faults.append(f"the ledger has other rows in step {step}")
        if is_ended and end != self.steps:
            faults.append(f"the ledger ends at step {end - 1}")
        return faults

    def cut_after_1000(self) -> Row:
        """Kills a run at step 1007, whose checkpoint is of step 1000, and goes on."""
        course, steps, self.steps = self._new_course(), self.steps, 1010
        try:
            arguments = {"every": 1000, "order": "ledger first", "point": "after the ledger", "at": 1007}
            (process,) = self._start(course, 1, start=0, **arguments)
            process.join(300)
            before = int(read_ledger(course / "ledger.jsonl").step[-1])
            start = newest_checkpoint(course)
            self._finish(self._start(course, 2, start=start))
        finally:
            self.steps = steps
        table = read_ledger(course / "ledger.jsonl")
        # Others tell of epochs that ended.
        cuts = [each for each in table.events if "steps" in each]
        events = [f"{each['event']}, steps {each['steps'][0]} to {each['steps'][1]}" for each in cuts]
        said = (
            f"the checkpoint was of step {start}, the ledger ended with step {before}; its event: {'; '.join(events)}"
        )
        is_whole = table.step.values.tolist() == list(range(1010)) and events == ["ledger cut, steps 1000 to 1007"]
        return Row("a ledger that ran on beyond the checkpoint", 1, said, "nothing" if is_whole else "the ledger")

    def _new_course(self) -> Path:
        self._course += 1
        folder = self.folder / f"course_{self._course}"
        folder.mkdir()
        return folder

    def _start(self, course, num_hosts, start, **arguments) -> list[BaseProcess]:
        self._run += 1
        if not start:
            # The run begins anew, and a plan at step 0 leaves the ledger of another run alone.
            (course / "ledger.jsonl").unlink(missing_ok=True)
        given = Given(course, self._run, start, **{"stop": self.steps} | arguments)
        processes = []
        for host in range(num_hosts):
            own = dataclasses.replace(given, host=(host, num_hosts))
            processes.append(self._processes.Process(target=train, args=(own,)))
            processes[-1].start()
        return processes

    def _finish(self, processes):
        for process in processes:
            process.join(300)
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"processes failed with exit codes {[process.exitcode for process in processes]}")

    def _wait_for_steps(self, course, processes, num_steps):
        """Waits until the first process has handed out so many steps."""
        log = f"rows_*_{self._run:03d}_0_of_{len(processes)}.jsonl"
        while processes[0].is_alive():
            written = [path.read_bytes().count(b"\n") for path in course.glob(log)]
            if written and written[0] >= num_steps:
                return
            time.sleep(0.005)

    def _worker_of(self, process) -> int | None:
        """Returns one of the processes that a process reads with."""
        # A worker is the child of the thread that asked for the first batch.
        for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None


def rows_of(judges: Sequence[LiveJudge]) -> list[Row]:
    """Returns a line of the table for each kind of fault, over what several judges have seen."""
    rows = []
    for name in POINTS:
        told = [judge.told[name] for judge in judges]
        hosts, events = sum((each.hosts for each in told), Counter()), sum((each.events for each in told), Counter())
        lost = sorted({said for each in told for said in each.lost})
        said = ", ".join(f"{count} on {num}" for num, count in sorted(hosts.items())) + " processes"
        said += "".join(f"; {count} {event}" for event, count in events.items())
        if not lost:
            said += f"; {sum(each.batches for each in told)} SHA-256 of global batches compared, all equal"
        rows.append(Row(name, sum(each.times for each in told), said, "; ".join(lost) or "nothing"))
    return rows


def newest_checkpoint(course: Path) -> int:
    """Returns the step of the last whole checkpoint of a run, 0 without one."""
    return max((int(path.name) for path in (course / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def _end(processes):
    for process in processes:
        process.kill()
        process.join()


def _cut_last_line(path):
    """Leaves half of the last line, as a process does that is killed while it writes."""
    written = path.read_bytes()
    last = written.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(written[: last + (len(written) - last) // 2])


def _lines(path):
    """Reads whole lines; a killed process may have left half of one."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _sha(step, batch) -> str:
    """Returns the SHA-256 of a global batch: its step, and the domain, row and values of each example."""
    content = [step, batch["ids"], batch["rows"], batch["values"]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
