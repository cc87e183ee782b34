"""Writes down what was really drawn, step by step, in a file that can be read while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from mixjax.files import local_path, make_folder, writing
from mixjax.live.arguments import check_integer, check_plan
from mixjax.live.batch import Batch
from mixjax.live.ledger_form import FORM, has_steps, is_start, read_lines, start_line, steps_line
from mixjax.live.plan import Plan

__all__ = ["Ledger"]

# What was drawn so far is written again after so many bytes, for who reads the end of the file only.
_RESTATED = 2**18


class Ledger:
    """Appends a line of JSON for each step, or for every few steps.

    A line holds the steps it covers, the rows drawn of each domain (and the tokens, if the plan counts those), the
    weights in force in the last of them and those that were asked for where they differ, losses and loss weights if
    they are given, and events. The first line after each start names the domains, and says what was drawn before. The
    last line of a plan that has ended says why.

    A run that was restored from step 1000 goes on from there, although its ledger may have run on to 1007. So a ledger
    that is opened again is cut to the steps before the plan's, and says so in an event. Steps that it lacks, because a
    line was not written yet when the process was killed, become one line, by what the plan has drawn. So no step is
    there twice, and none is missing.

    With several hosts all may run the same code: the first one writes, since a batch has the counts of all hosts. The
    others only check what they are given.

    Args:
        path: the file; made if it does not exist, with the folders above it.
        plan: the plan, at the step from which the ledger is to go on: after ``plan.set_state``.
        every: number of steps a line, at least 1. A line takes about 0.3 microseconds of processor time a domain.

    Raises:
        ValueError: ``every`` is out of range, the file is no ledger, or it holds steps and the plan is at step 0.

    Example:
        >>> import tempfile
        >>> from mixjax.live import Ledger, Plan, read_ledger
        >>> plan = Plan({"web": 100, "code": 10}, batch_size=4, weights=[0.5, 0.5], lag=1)
        >>> path = tempfile.mkdtemp() + "/ledger.jsonl"
        >>> with Ledger(path, plan) as ledger:
        ...     for step in range(10):
        ...         ledger.write(next(plan), losses=[1.0, 2.0])
        ...         plan.keep(step)
        >>> read_ledger(path).epochs.isel(step=-1).values.tolist()
        [0.2, 2.0]
    """

    def __init__(self, path: str | os.PathLike, plan: Plan, every: int = 1):
        """Opens the file, and cuts it to the steps before the plan's."""
        check_integer("every", every, 1)
        self._path, self._every = local_path("path", path), every
        check_plan(plan)
        self._plan, self._num_domains = plan, len(plan.sizes)
        self._waiting: list[Batch] = []
        self._losses = self._loss_weights = None
        self._next = plan.step
        self._drawn = np.asarray(plan.get_state()["drawn"], np.int64)
        self._unstated = 0
        if plan.host[0]:
            # Hosts often share their disk, where two of them would cut and append to one file.
            self._file: BinaryIO = open(os.devnull, "ab", buffering=0)  # noqa: SIM115 (closed by close)
            return
        make_folder("path", self._path.parent)
        if self._path.is_dir():
            raise IsADirectoryError(f"path: takes a file, but {self._path} is a folder")
        lines, event = _cut(self._path, plan)
        # Written anew and renamed, so that a process killed here loses no line.
        partial = self._path.with_name(f".{self._path.name}.partial")
        with writing(self._path):
            with open(partial, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in [*lines, self._start(event)])
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self._path)
        # Unbuffered, since a buffer would write a second time what a full disk refused.
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed by close)

    def __enter__(self) -> Ledger:
        """Returns the ledger, which is closed at the end of the block."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Closes the file."""
        self.close()

    def _start(self, event: dict[str, Any] | None) -> dict[str, Any]:
        return start_line(self._plan, event, self._next, self._drawn)

    def write(
        self,
        batch: Batch | Mapping[str, Any],
        losses: ArrayLike | None = None,
        loss_weights: ArrayLike | None = None,
    ) -> None:
        """Notes a step.

        Args:
            batch: the plan's batch, or an element of :func:`mixjax.live.mix`; of the step after the last one noted.
            losses: mean loss of each domain, ``[D]``; NaN where the step had none. Of several steps in a line the last
                ones given are written.
            loss_weights: the loss weights c, ``[D]``, where they are not the sampling weights. Of several steps in a
                line the last ones given are written.

        Raises:
            ValueError: another step, a batch without what a line tells, or losses or loss weights that are not ``[D]``.
            TypeError: ``batch`` is no batch.
        """
        batch = self._as_batch(batch)
        if batch.step != self._next:
            raise ValueError(
                f"the next step of the ledger is {self._next}, got step {batch.step}. After plan.set_state open the "
                "ledger anew."
            )
        if losses is not None:
            self._losses = self._by_domain("losses", losses)
        if loss_weights is not None:
            self._loss_weights = self._by_domain("loss_weights", loss_weights)
        self._next += 1
        self._waiting.append(batch)
        # More steps than these wait where the disk was full.
        if len(self._waiting) >= self._every:
            self.flush()

    def _by_domain(self, name: str, values: ArrayLike) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if values.shape != (self._num_domains,):
            raise ValueError(f"{name} must be [{self._num_domains}], one per domain, got shape {values.shape}.")
        return values

    def _as_batch(self, batch: Any) -> Batch:
        """Returns a batch of what a line tells; the rest is None where an element has been stripped of it."""
        if isinstance(batch, Batch):
            return batch
        if not isinstance(batch, Mapping):
            raise TypeError(f"batch must be an element of live.mix, or a plan's batch, got {type(batch).__name__}.")
        told = ["step", "counts", "weights", "asked", "events"]
        if self._plan.token_totals is not None:
            told.append("tokens")
        lacking = [field for field in told if field not in batch]
        if lacking:
            raise ValueError(f"batch must keep {', '.join(told)} for the ledger, and lacks {', '.join(lacking)}.")
        fields: dict[str, Any] = {field: batch.get(field) for field in Batch._fields}
        return Batch(**fields)

    def flush(self) -> None:
        """Writes the line of the steps that wait, if any.

        Raises:
            OSError: the disk is full, for instance. The steps go on waiting, for the next line that can be written.
        """
        if not self._waiting:
            return
        first, last = self._waiting[0], self._waiting[-1]
        # An element that went to the device comes back with JAX arrays.
        asked, weights = np.asarray(last.asked), np.asarray(last.weights)
        shares: dict[str, Any] = {"weights": weights}
        if not np.array_equal(asked, weights):
            shares = {"asked": asked, "weights": weights}
        for name, values in (("loss_weights", self._loss_weights), ("losses", self._losses)):
            if values is not None:
                shares[name] = values
        events = [event for each in self._waiting for event in each.events]
        tokens = None if first.tokens is None else self._sum("tokens")
        counts = self._sum("counts")
        line = steps_line((first.step, last.step), counts, tokens, shares, events)
        self._append(line)
        self._waiting, self._losses, self._loss_weights = [], None, None
        self._drawn = self._drawn + counts
        self._unstated += len(line)
        if self._unstated > _RESTATED:
            start = json.dumps(self._start(None)) + "\n"
            self._append(start)
            # With thousands of domains a start is long itself.
            self._unstated = -4 * len(start)

    def close(self) -> None:
        """Writes what waits, and the plan's ending if all its steps were noted; closes the file."""
        if self._file.closed:
            return
        self.flush()
        ending = self._plan.ending
        if ending is not None and ending["step"] == self._next:
            self._append(json.dumps({"step": self._next, "event": ending}) + "\n")
        self._file.close()

    def _append(self, line: str) -> None:
        """Hands a whole line to the operating system, which keeps it if this process is killed, or nothing of it."""
        end, left = self._file.seek(0, os.SEEK_END), line.encode()
        with writing(self._path):
            try:
                # A disk that is almost full takes a part of the line.
                while left:
                    left = left[self._file.write(left) :]
            except BaseException:
                self._file.truncate(end)
                raise

    def _sum(self, field):
        """Adds up what the steps that wait have drawn."""
        arrays = [np.asarray(getattr(batch, field), np.int64) for batch in self._waiting]
        return arrays[0] if len(arrays) == 1 else np.sum(arrays, axis=0)


def _cut(path: Path, plan: Plan) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns the lines of a ledger before the plan's step, and the event that tells what was cut or filled in."""
    lines = read_lines(path) if path.exists() and path.stat().st_size else []
    # An ending is left out: a plan that goes on has none, and any other writes it again.
    kept = [line for line in lines if has_steps(line) and line["step"] < plan.step]
    # A start belongs to the lines after it.
    starts = [line for line in lines if is_start(line) and line["step"] < plan.step]
    kept = sorted([*starts, *kept], key=lambda line: (line.get("from", line["step"]), has_steps(line)))
    end = max((line["step"] + 1 for line in lines if has_steps(line)), default=0)
    if end and not plan.step:
        # A plan that was not restored yet would cut all of it.
        raise ValueError(
            f"{path} holds {end} steps, and the plan is at step 0: call plan.set_state first, or take another file for "
            "a new run."
        )
    covered = max((line["step"] + 1 for line in kept if has_steps(line)), default=0)
    if covered < plan.step:
        kept += _filled(kept, covered, plan)
    if end > plan.step:
        return kept, {"step": plan.step, "event": "ledger cut", "steps": [plan.step, end - 1]}
    if end < plan.step:
        return kept, {"step": plan.step, "event": "ledger filled in", "steps": [end, plan.step - 1]}
    return kept, None


def _filled(kept, covered, plan):
    """Makes the line of steps that no whole line covers, by what the plan has drawn; their weights are not known."""
    state = plan.get_state()
    domains: list[str] = list(plan.sizes)
    drawn: dict[str, dict[str, int]] = {"counts": {}, "tokens": {}}
    for line in kept:
        if is_start(line):
            domains = list(line["domains"])
            continue
        for field, sums in drawn.items():
            for name, number in zip(domains, line.get(field, [0] * len(domains)), strict=True):
                sums[name] = sums.get(name, 0) + number

    def missing(field, totals):
        total = dict(zip(plan.sizes, totals, strict=True))
        return [max(total.get(name, 0) - drawn[field].get(name, 0), 0) for name in domains]

    nothing = [None] * len(domains)
    line = {"from": covered, "step": plan.step - 1, "counts": missing("counts", state["drawn"])}
    if "tokens" in state:
        line["tokens"] = missing("tokens", state["tokens"])
    line |= {"asked": nothing, "weights": nothing}
    return [line] if kept else [{"ledger": FORM, "step": 0, "domains": dict(plan.sizes)}, line]
