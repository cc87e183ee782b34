"""Measures what ``mixjax watch`` costs beside the run that it watches: a small language model on a live mix."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks import timing

__all__ = ["Turn", "run", "turns"]

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "live_mix" / "text_quick.toml"
LIMIT = 0.5
"""What was asked for: at most so many per cent of the run's processor time."""

# Enough steps that starting is not most of the run.
_SETTINGS = {True: ("num_steps=20", "eval_every=10", "save_every=10"), False: ("num_steps=1000", "eval_every=100")}


class Turn(NamedTuple):
    """Holds processor times of one turn, in seconds, of all threads and of whole processes.

    Attributes:
        alone: the run without a watcher.
        watched: the run beside a watcher.
        watching: the watcher.
        start: a watcher that looks once and ends: imports and one look.
    """

    alone: float
    watched: float
    watching: float
    start: float


def turns(num: int, quick: bool) -> list[Turn]:
    """Runs the config alone and watched, the one first in one turn and the other in the next.

    Args:
        num: number of turns.
        quick: whether runs are so short that the numbers mean nothing.

    Returns:
        One entry a turn.

    Raises:
        RuntimeError: a command has failed.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(num):
            alone = None if turn % 2 else _seconds(_start_run(Path(folder, f"alone_{turn}"), quick))
            out = Path(folder, f"watched_{turn}")
            training, watcher = _start_run(out, quick), _Watcher(out)
            watched, watching = _seconds(training), watcher.seconds()
            start = _Watcher(out, "--once").seconds()
            if alone is None:
                alone = _seconds(_start_run(Path(folder, f"alone_{turn}"), quick))
            found.append(Turn(alone, watched, watching, start))
    return found


def _start_run(out: Path, quick: bool) -> subprocess.Popen:
    settings = ["sweep.seeds=1", 'sweep.method=["static"]', *_SETTINGS[quick]]
    options = [part for setting in settings for part in ("--set", setting)]
    return _start("run", str(CONFIG), "--out", str(out), *options)


def _start(*arguments: str, output: int = subprocess.DEVNULL) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from mixjax.cli import main; sys.exit(main())", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.DEVNULL)


class _Watcher:
    """Runs ``mixjax watch`` in a terminal of its own, since without one it looks only once."""

    def __init__(self, out: Path, *options: str):
        ours, theirs = pty.openpty()
        self._process = _start("watch", str(out), *options, output=theirs)
        os.close(theirs)
        # A terminal that nobody reads is full after a few screens, and what writes to it waits.
        self._reader = threading.Thread(target=_read_all, args=(ours,), daemon=True)
        self._reader.start()

    def seconds(self) -> float:
        """Waits for the end, and returns the processor time."""
        seconds = _seconds(self._process)
        self._reader.join()
        return seconds


def _read_all(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        # Linux reports the end of the last writer so.
        pass
    finally:
        os.close(terminal)


def _seconds(process: subprocess.Popen) -> float:
    """Waits for a process, and returns its processor time."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def run(quick: bool) -> timing.Report:
    """Measures the turns, and compares a watcher's time after its start with the run's."""
    measured = turns(1 if quick else 5, quick)
    looks = [max(turn.watching - turn.start, 0.0) for turn in measured]
    watched = [turn.watched for turn in measured]
    share = timing.summarize([100 * look / whole for look, whole in zip(looks, watched, strict=True)])
    beside = timing.ratios(watched, [turn.alone for turn in measured])
    columns = [timing.summarize(list(values)) for values in zip(*measured, strict=True)]
    rows = [
        ("a run without a watcher", columns[0]),
        ("a run beside a watcher", columns[1]),
        ("the watcher, from its start to the run's end", columns[2]),
        ("a watcher that looks once and ends", columns[3]),
        ("the watcher's looks: the third less the fourth", timing.summarize(looks)),
    ]
    text = [
        f"`mixjax watch` in a terminal beside `mixjax run configs/live_mix/{CONFIG.name}`, one method and one seed, "
        f"{', '.join(f'`{setting}`' for setting in _SETTINGS[quick])}. Processor time of whole processes, in seconds; "
        f"{len(measured)} turns, in which either the watched run or the other one comes first.",
        timing.table(["", "seconds"], rows),
        f"The looks take {share} % of the run's processor time. Beside a watcher the run itself takes {beside} times "
        "the processor time that it takes alone. The start, which is mostly imports, is paid once, however long the "
        "run is. Looks are spaced by the clock on the wall: on a machine that does other work, the run takes longer "
        "and is looked at more often.",
    ]
    statement = f"looking takes at most {LIMIT} % of the run's processor time"
    targets = [timing.Target(statement, f"{share} %", share.median <= LIMIT)]
    return timing.Report(
        "What watching a run costs", "\n\n".join(text), {"turns": [turn._asdict() for turn in measured]}, targets
    )
