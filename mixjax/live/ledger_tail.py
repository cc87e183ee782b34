"""Reads the end of a ledger: where a run is now, however long its ledger has become."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixjax.live.ledger_form import has_steps, is_start

__all__ = ["Tail", "read_tail"]

# Twice the bytes between two starts; an older ledger has one start, and of its end no more than the most is read.
_BYTES, _MOST_BYTES = 2**19, 2**25


class Tail(NamedTuple):
    """Holds where a plan is, by domain.

    Attributes:
        step: the last step noted; -1 before the first one.
        domains: names.
        sizes: ``[D]``, rows of an epoch.
        drawn: ``[D]``, rows drawn since the first step, or since ``since``.
        since: the first step that ``drawn`` counts; 0 but for the long ledgers of older versions.
        weights: ``[D]``, the sampling weights in force; NaN where they are not known.
        asked: ``[D]``, those that were asked for.
        loss_weights: ``[D]``, the loss weights; NaN where none are written.
        losses: ``[D]``, the last loss of each domain; NaN where there is none.
        asked_rows: ``[D]``, rows that the weights asked for in the steps that were read; ``recent`` are those drawn.
        recent: ``[D]``, rows drawn in the steps that were read.
        max_epochs: ``[D]``, limits; infinite where there is none.
        batch_size: rows of a step.
        budget: rows, or tokens, of the whole run, or None.
        unit: what the budget counts, "rows" or "tokens".
        events: the events of the lines that were read.
        ended: why the plan has ended, or "".
    """

    step: int
    domains: list[str]
    sizes: NDArray[np.int64]
    drawn: NDArray[np.int64]
    since: int
    weights: NDArray[np.floating]
    asked: NDArray[np.floating]
    loss_weights: NDArray[np.floating]
    losses: NDArray[np.floating]
    asked_rows: NDArray[np.floating]
    recent: NDArray[np.int64]
    max_epochs: NDArray[np.floating]
    batch_size: int
    budget: float | None
    unit: str
    events: list[dict[str, Any]]
    ended: str


def read_tail(path: str | os.PathLike) -> Tail | None:
    """Reads the last lines of a ledger, about half a megabyte, also while they are being written.

    Args:
        path: the file.

    Returns:
        Where the plan is; None where the file is no ledger, or has no whole line yet.

    Raises:
        OSError: the file is not there, or cannot be read.

    Example:
        >>> import tempfile
        >>> from mixjax.live import Ledger, Plan
        >>> plan = Plan({"web": 100, "code": 10}, batch_size=4, weights=[0.75, 0.25], lag=1)
        >>> path = tempfile.mkdtemp() + "/ledger.jsonl"
        >>> with Ledger(path, plan) as ledger:
        ...     ledger.write(next(plan))
        >>> tail = read_tail(path)
        >>> tail.step, tail.domains, tail.drawn.tolist()
        (0, ['web', 'code'], [3, 1])
    """
    with open(path, "rb") as file:
        # Each line is whole by itself, and one that is being written has no end yet.
        size = file.seek(0, os.SEEK_END)
        num_bytes = _BYTES
        while True:
            file.seek(max(size - num_bytes, 0))
            lines = _lines(file.read(num_bytes), from_start=num_bytes >= size)
            starts = [i for i, line in enumerate(lines) if is_start(line)]
            if starts or num_bytes >= min(size, _MOST_BYTES):
                break
            num_bytes *= 4
        if not starts:
            file.seek(0)
            lines = [*_lines(file.readline(), from_start=True), *lines]
            starts = [0] if lines and is_start(lines[0]) else []
    if not starts:
        return None
    try:
        # From the start before the last one, so that a new start does not hide the steps just drawn.
        same = starts[-2:-1] if lines[starts[-1]]["domains"] == lines[starts[-2:][0]]["domains"] else []
        return _tail(lines[(same or starts)[-1] :])
    # A file of other JSON, or of a newer version.
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None


def _lines(text: bytes, *, from_start: bool) -> list[dict[str, Any]]:
    """Returns the whole lines of a piece of a ledger; what is no object is passed over."""
    pieces = text.split(b"\n")[:-1]
    found = []
    for piece in pieces if from_start else pieces[1:]:
        try:
            line = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            found.append(line)
    return found


def _tail(lines: list[dict[str, Any]]) -> Tail:
    start, lines = lines[0], lines[1:]
    domains = [str(name) for name in start["domains"]]
    num = len(domains)
    steps = [line for line in lines if has_steps(line) and len(line["counts"]) == num]
    before = np.array(start.get("drawn", [0] * num), np.int64)
    recent = np.sum([np.zeros(num), *(line["counts"] for line in steps)], axis=0).astype(np.int64)
    asked_rows = np.zeros(num)
    for line in steps:
        share = _vector(line.get("asked", line.get("weights")), num)
        asked_rows += np.nan_to_num(share) * sum(line["counts"])
    first = steps[0]["from"] if steps else start["step"]
    # A start without what was drawn before says nothing about the steps before the ones that were read.
    since = 0 if "drawn" in start else first
    last = steps[-1] if steps else {}
    events = [start["event"]] if isinstance(start.get("event"), dict) else []
    for line in lines:
        events += [line["event"]] if isinstance(line.get("event"), dict) else line.get("events", [])
    is_end = bool(lines) and not has_steps(lines[-1]) and not is_start(lines[-1])
    ending = lines[-1].get("event") if is_end else None
    return Tail(
        step=int(steps[-1]["step"]) if steps else int(start["step"]) - 1,
        domains=domains,
        sizes=np.array(list(start["domains"].values()), np.int64),
        drawn=before + recent,
        since=int(since),
        weights=_vector(last.get("weights"), num),
        asked=_vector(last.get("asked", last.get("weights")), num),
        loss_weights=_latest(steps, "loss_weights", num),
        losses=_latest(steps, "losses", num),
        asked_rows=asked_rows,
        recent=recent,
        max_epochs=_limits(start.get("max_epochs"), num),
        batch_size=int(start.get("batch_size") or 0),
        budget=start.get("budget"),
        unit=str(start.get("unit", "rows")),
        events=events,
        ended=str(ending.get("reason", ending.get("event", "ended"))) if isinstance(ending, dict) else "",
    )


def _vector(values: Any, num: int) -> NDArray[np.floating]:
    return np.full(num, np.nan) if values is None else np.array(values, np.float64).reshape(num)


def _latest(steps: list[dict[str, Any]], name: str, num: int) -> NDArray[np.floating]:
    """Returns the last number of each domain; a step tells only of the domains that it has seen."""
    found = np.full(num, np.nan)
    for line in steps:
        if name in line:
            values = _vector(line[name], num)
            found = np.where(np.isfinite(values), values, found)
    return found


def _limits(limits: Any, num: int) -> NDArray[np.floating]:
    values = limits if isinstance(limits, list) else [limits] * num
    return np.array([np.inf if value is None else float(value) for value in values]).reshape(num)
