"""Times the live mix beside grain's mix, other loaders of mixtures, and a plain loop over arrays."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import live_step, timing
from experiments.benchmarks.loaders import LOADERS, ROW_LENGTH, WORKERS

__all__ = ["Loader", "measure", "run", "targets"]

NUM_DOMAINS = (4, 200, 2000)
BATCH_SIZES = (256, 4096)
NUM_ROWS = 2**17
# A turn of a loader takes about so long.
TURN_SECONDS = 0.3
# A loader is left out where a batch would take more processor time, by what it took in smaller batches.
MAX_BATCH_SECONDS = 0.6
# Least batches a turn of loaders that read ahead, since a turn starts with those that were read in the one before.
LEAST_BATCHES = 16


def run(quick: bool) -> timing.Report:
    """Measures the loaders, the plan alone and a training step.

    Args:
        quick: tiny sizes.

    Returns:
        The report.
    """
    num_domains, batch_sizes, num_rows = ((3,), (8, 16), 300) if quick else (NUM_DOMAINS, BATCH_SIZES, NUM_ROWS)
    repeats, seconds = (2, 0.01) if quick else (3, TURN_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.bin"
        np.random.default_rng(0).integers(0, 2**16, num_rows * ROW_LENGTH).astype(np.uint16).tofile(path)
        measured, missing, versions = measure(path, list(LOADERS), num_domains, batch_sizes, repeats, seconds)
    alone = live_step.plan_times(num_domains, batch_sizes, repeats, quick)
    step = live_step.training_step(quick)
    restored = live_step.restoring(quick)
    text = [
        f"Rows are {ROW_LENGTH} tokens of 2 bytes. {num_rows:,} rows are cut into D domains of equal size with shares "
        "from a flat Dirichlet distribution, and every loader draws them in random order, by the same shares. The live "
        "mix gets other weights after every step; the other loaders cannot. *MapDatasets* and *grain mix* read the "
        "same `grain.MapDataset`s, of arrays that lie in a mapped file in the page cache. Each loader is a process of "
        "its own, stopped while it is not its turn. *Processor time* is that of the process and its children, user and "
        f"system. Each process holds the rows ({2e-6 * num_rows * ROW_LENGTH:.0f} MB), and pages of the mapped file "
        "count as memory of each process that read them.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        *(f"- {name}: not run, since {module} is not installed." for name, module in missing.items()),
    ]
    columns = [(d, b) for d in num_domains for b in batch_sizes]
    for title, field in (
        ("Processor time, microseconds a row", "processor"),
        ("Rows a second, thousands", "rate"),
        ("Most resident memory of the process and its children, MB", "memory"),
    ):
        text += [f"**{title}**", loader_table(measured, columns, field)]
    text += [
        f"A loader has no number where a batch would take more than {MAX_BATCH_SECONDS:g} s of processor time; with "
        f"{WORKERS} workers, 2,000 domains were not tried.",
        "**The plan alone**, microseconds of processor time a row, new weights after every step; domains of 2^33 rows, "
        "which are shuffled by blocks as they come:",
        timing.table(
            ["", *(f"D = {d}" for d in num_domains)],
            [(f"B = {b}", *(timing.summarize(alone[d, b]) for d in num_domains)) for b in batch_sizes],
        ),
        step["text"],
        restored["text"],
    ]
    data = {
        "loaders": {f"D={d} B={b}": sides for (d, b), sides in measured.items()},
        "missing": missing,
        "versions": versions,
        "plan": {f"D={d} B={b}": values for (d, b), values in alone.items()},
        "step": step["data"],
        "restoring": restored["data"],
    }
    rows = targets(measured, alone, step["overhead"], restored["milliseconds"])
    return timing.Report("The live mix", "\n\n".join(text), data, rows)


class Loader:
    """Runs a loader in a process that stands still unless it is asked for something."""

    def __init__(self, path: Path, name: str):
        """Starts the process."""
        command = [sys.executable, "-m", "experiments.benchmarks.loaders", str(path), name]
        # A group of its own, so that the loader's workers stop with it; in this session, so that the system ends all of
        # them if this process is killed.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        os.killpg(self.process.pid, signal.SIGSTOP)

    def ask(self, *request: Any) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        # A process that has ended is seen by its answer.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a loader ended: {' '.join(map(str, self.process.args))}")
        os.killpg(self.process.pid, signal.SIGSTOP)
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def measure(
    path: Path,
    names: Sequence[str],
    num_domains: Sequence[int],
    batch_sizes: Sequence[int],
    repeats: int,
    seconds: float,
) -> tuple[dict[tuple[int, int], dict[str, dict[str, list[float]]]], dict[str, str], dict[str, str]]:
    """Measures loaders in turns.

    Args:
        path: the file of rows.
        names: names of :data:`experiments.benchmarks.loaders.LOADERS`.
        num_domains: numbers of domains.
        batch_sizes: batch sizes, in ascending order.
        repeats: number of turns.
        seconds: how long a turn takes about.

    Returns:
        ``(measured, missing, versions)``. For each number of domains and batch size, and each loader: processor time
        in microseconds a row, thousands of rows a second, and MB of memory, one of each a turn. The module that a
        loader lacks, for those that lack one. The versions of what they load.
    """
    measured, missing, versions = {}, {}, {}
    loaders = {name: Loader(path, name) for name in names}
    try:
        for d in num_domains:
            for b in batch_sizes:
                steps = {}
                for name, loader in loaders.items():
                    if name in missing or too_slow(name, d, b, measured):
                        continue
                    answer = loader.ask("build", d, b)
                    if "missing" in answer:
                        missing[name] = answer["missing"]
                        continue
                    versions |= answer["versions"]
                    least = LEAST_BATCHES if name.endswith(("workers", "threads")) else 1
                    steps[name] = warmed_up(loader, least, seconds)
                measured[d, b] = turns({name: loaders[name] for name in steps}, steps, b, repeats)
    finally:
        for loader in loaders.values():
            loader.close()
    return measured, missing, versions


def warmed_up(loader: Loader, least: int, seconds: float) -> int:
    """Loads until buffers, caches and blocks of shuffled rows are full; returns how many batches take some seconds."""
    steps = least
    while (took := loader.ask("load", steps)["wall"]) < seconds / 2:
        steps *= 2
    return max(least, round(steps * seconds / took))


def turns(loaders: Mapping[str, Loader], steps: Mapping[str, int], batch_size: int, repeats: int):
    """Lets loaders load in turns, each turn starting one loader later."""
    values = {name: {"processor": [], "rate": [], "memory": []} for name in loaders}
    names = list(loaders)
    for turn in range(repeats):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            answer = loaders[name].ask("load", steps[name])
            rows = steps[name] * batch_size
            values[name]["processor"].append(1e6 * answer["processor"] / rows)
            values[name]["rate"].append(1e-3 * rows / answer["wall"])
            values[name]["memory"].append(answer["memory"])
    return values


def too_slow(name: str, num_domains: int, batch_size: int, measured: Mapping) -> bool:
    """Tells whether a batch would take too long, by what smaller ones took."""
    if "workers" in name and num_domains > 1000:
        return True
    smaller = [sides for (d, b), sides in measured.items() if d == num_domains and b < batch_size]
    if not smaller:
        return False
    side = smaller[-1].get(name)
    return side is None or 1e-6 * batch_size * np.median(side["processor"]) > MAX_BATCH_SECONDS


def loader_table(measured, columns, field):
    """Writes a table with one row for each loader and one column for each number of domains and batch size."""
    names = [name for name in LOADERS if any(name in sides for sides in measured.values())]
    rows = [
        (name, *(timing.summarize(measured[at][name][field]) if name in measured[at] else "" for at in columns))
        for name in names
    ]
    return timing.table(["", *(f"D = {d}, B = {b}" for d, b in columns)], rows)


def targets(
    measured: Mapping[tuple[int, int], Mapping[str, Mapping[str, Sequence[float]]]],
    alone: Mapping[tuple[int, int], Sequence[float]],
    overhead: timing.Summary,
    milliseconds: timing.Summary,
) -> list[timing.Target]:
    """Compares what was asked for with what was measured.

    Args:
        measured: from :func:`measure`.
        alone: microseconds a row of the plan, by number of domains and batch size.
        overhead: percent of a training step.
        milliseconds: milliseconds that restoring a plan takes.
    """
    rows = []
    for ours, other, num_domains, least in (
        ("mixjax, MapDatasets", "grain mix", 4, 1.0),
        ("mixjax, MapDatasets, 2 workers", "grain mix, 2 workers", 4, 1.0),
        ("mixjax, MapDatasets", "grain mix", 200, 5.0),
        ("mixjax, MapDatasets, 2 workers", "grain mix, 2 workers", 200, 5.0),
        ("mixjax, arrays", "plain loop over arrays", None, 0.5),
        ("mixjax, memory maps", "plain loop over arrays", None, 0.5),
    ):
        times = {
            at: timing.ratios(sides[other]["processor"], sides[ours]["processor"])
            for at, sides in measured.items()
            if num_domains in (None, at[0]) and ours in sides and other in sides
        }
        if times:
            at = min(times, key=lambda at: times[at].median)
            where = "at every D and B" if num_domains is None else f"at D = {num_domains}"
            statement = f"{ours}: at least {least:g} times the rows of *{other}* in the same processor time, {where}"
            text = f"{times[at]} times (D = {at[0]}, B = {at[1]})"
            rows.append(timing.Target(statement, text, times[at].median >= least))
    plan = {at: timing.summarize(values) for at, values in alone.items()}
    worst = max(plan, key=lambda at: plan[at].median)
    rows += [
        timing.Target(
            "the plan alone: at most 1 microsecond a row, shuffling included",
            f"{plan[worst]} (D = {worst[0]}, B = {worst[1]})",
            plan[worst].median <= 1.0,
        ),
        timing.Target("at most 2 % of a training step", f"{overhead} %", overhead.median <= 2.0),
        timing.Target(
            "restoring a state at step 10^9 in less than 10 ms", f"{milliseconds} ms", milliseconds.median < 10.0
        ),
    ]
    return rows
