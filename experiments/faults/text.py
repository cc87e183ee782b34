"""Kills ``mixjax run configs/live_mix/text_quick.toml``, and compares metrics and ledgers with an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import xarray

from experiments.faults.command import ROOT, Row, arrays, same
from mixjax.live import read_ledger

__all__ = ["TextJudge"]

# The command imports these when it starts.
_IMPORTS = ["mixjax.cli.commands", "mixjax.runner.report", "mixjax.runner.results"]


class TextJudge:
    """Disturbs the training of a language model on a live mix, or, as a subclass, of something else.

    Attributes:
        config: the config that the command runs.
        imports: the module of the config's experiment.
        traces: the pattern of the files that an unfinished run writes again and again.
        said: what is compared of finished commands.
        folder: the folder that all runs write below.
        seconds: the time of the undisturbed run.
        whole: the arrays of the undisturbed run.
        ledgers: the ledgers of the undisturbed run, by the folder of their training run.
    """

    config = ROOT / "configs" / "live_mix" / "text_quick.toml"
    imports = "experiments.live_mix.text"
    traces = "**/ledger.jsonl"
    said = "metrics and ledgers"

    def __init__(self, folder: Path, settings: Sequence[str] = ()):
        """Runs the command undisturbed, with ``--set`` for each of the settings, such as ``"num_steps=20"``."""
        self.folder = folder
        self._arguments = ["run", str(self.config), *(word for each in settings for word in ("--set", each))]
        # A process that has imported everything, and has no threads, forks the others: each is spared the imports.
        self._processes = get_context("forkserver")
        self._processes.set_forkserver_preload([self.imports, *_IMPORTS])
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        self._finish(folder / "undisturbed")
        self.seconds = time.perf_counter() - begin
        self.whole, self.ledgers = arrays(folder / "undisturbed"), _ledgers(folder / "undisturbed")

    def kill(self, times: int, seed: int = 0) -> Row:
        """Kills the command at random moments until it was killed ``times`` times, each time giving it again."""
        draw, told, lost, finished = random.Random(seed), Counter(), [], 0
        out = self.folder / "killed_0"
        while sum(told.values()) < times:
            process, begin = self._start(out), time.time()
            # A third of a run at most, so that most moments lie in the middle of one.
            moment, steps = time.perf_counter() + draw.uniform(0, self.seconds / 3), self._written(out)
            # Half of the kills wait for the first step, and so do not meet the start of the program.
            waits = draw.random() < 0.5
            while process.is_alive() and (time.perf_counter() < moment or (waits and self._written(out) == steps)):
                time.sleep(0.002)
            if process.is_alive():
                trains = self._newest(out) > begin
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                told["in training" if trains else "before its first step"] += 1
                print(f"{sum(told.values())} of {times}", flush=True)
                continue
            lost += self._lost(out)
            finished += 1
            out = self.folder / f"killed_{finished}"
        self._finish(out)
        lost += self._lost(out)
        said = ", ".join(f"{count} {moment}" for moment, count in told.items())
        if not lost:
            said += f"; {self.said} of {finished + 1} finished commands compared, all equal"
        return Row("SIGKILL of `mixjax run`", sum(told.values()), said, "; ".join(sorted(set(lost))) or "nothing")

    @staticmethod
    def command(arguments: list[str], cache: str) -> None:
        """Does what the shell does with the words after ``mixjax``, in silence."""
        import jax

        from mixjax.cli import main

        # Many short runs compile the same programs.
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        main(arguments)

    def _start(self, out: Path) -> BaseProcess:
        arguments = [*self._arguments, "--out", str(out)]
        process = self._processes.Process(target=self.command, args=(arguments, str(self.folder / "compiled")))
        process.start()
        return process

    def _finish(self, out: Path):
        process = self._start(out)
        process.join(600)
        if process.exitcode:
            raise RuntimeError(f"the command failed with exit code {process.exitcode}")

    def _written(self, out: Path) -> tuple[int, ...]:
        """Returns when the files of a command that has not ended were written, in nanoseconds since the epoch."""
        found = []
        for path in out.with_name(f"{out.name}.chunks").glob(self.traces):
            # A carry is removed when a newer one is there.
            with contextlib.suppress(FileNotFoundError):
                found.append(path.stat().st_mtime_ns)
        return tuple(found)

    def _newest(self, out: Path) -> float:
        """Returns when such a file was written last, in seconds since the epoch."""
        return float(np.max([time_ / 1e9 for time_ in self._written(out)], initial=0.0))

    def _lost(self, out: Path) -> list[str]:
        """Returns what differs from the undisturbed run, in words."""
        lost = [] if same(arrays(out), self.whole) else ["the metrics differ"]
        ledgers = _ledgers(out)
        for name, want in self.ledgers.items():
            # Events differ, since they tell of the cuts.
            if name not in ledgers or not ledgers[name].equals(want):
                lost.append(f"the ledger of {name} differs")
        return lost


def _ledgers(out: Path) -> dict[str, xarray.Dataset]:
    return {path.parent.name: read_ledger(path) for path in sorted(out.glob("files/**/ledger.jsonl"))}
