"""Writes down what was really drawn, step by step, in a file that can be read while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mixjax.files import local_path
from mixjax.live.batch import Batch
from mixjax.live.plan import Plan

if TYPE_CHECKING:
    import xarray

__all__ = ["Ledger", "read_ledger"]

_FORM = 1


class Ledger:
    """Appends a line of JSON for each step, or for every few steps.

    A line holds the steps it covers, the rows drawn of each domain, the weights that were asked for and in force in the
    last of them, losses if they are given, and events. The first line after each start names the domains.

    A run that was restored from step 1000 goes on from there, although its ledger may have run on to 1007. So a ledger
    that is opened again is cut to the steps before the plan's, and says so in an event. Steps that it lacks, because a
    line was not written yet when the process was killed, become one line, by what the plan has drawn. So no step is
    there twice, and none is missing.

    With several hosts all may run the same code: the first one writes, since a batch has the counts of all hosts. The
    others only check what they are given.

    Args:
        path: the file; made if it does not exist, with the folders above it.
        plan: the plan, at the step from which the ledger is to go on: after ``plan.set_state``.
        every: number of steps a line, at least 1. With 2,000 domains a line takes about a millisecond.

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
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be an integer of at least 1, got {every!r}.")
        self._path, self._every = local_path("path", path), every
        self._num_domains = len(plan.sizes)
        self._waiting: list[Batch] = []
        self._losses = None
        self._next = plan.step
        if plan.host[0]:
            # Hosts often share their disk, where two of them would cut and append to one file.
            self._file: IO[str] = open(os.devnull, "a")  # noqa: SIM115 (closed by close)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        start = {
            "ledger": _FORM,
            "step": plan.step,
            "domains": dict(plan.sizes),
            "batch_size": plan.batch_size,
            "seed": plan.seed,
            "budget": plan.budget,
            "max_epochs": None if plan.max_epochs is None else np.asarray(plan.max_epochs).tolist(),
        }
        lines, event = _cut(self._path, plan)
        if event:
            start["event"] = event
        # Written anew and renamed, so that a process killed here loses no line.
        partial = self._path.with_name(f".{self._path.name}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in [*lines, start])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)

    def __enter__(self) -> Ledger:
        """Returns the ledger, which is closed at the end of the block."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Closes the file."""
        self.close()

    def write(self, batch: Batch | Mapping[str, Any], losses: ArrayLike | None = None) -> None:
        """Notes a step.

        Args:
            batch: the plan's batch, or an element of :func:`mixjax.live.mix`; of the step after the last one noted.
            losses: mean loss of each domain, ``[D]``; NaN where the step had none. Of several steps in a line the last
                ones given are written.

        Raises:
            ValueError: another step, or losses that are not ``[D]``.
        """
        if isinstance(batch, Mapping):
            batch = Batch(**{field: batch[field] for field in Batch._fields})
        if batch.step != self._next:
            raise ValueError(
                f"the next step of the ledger is {self._next}, got step {batch.step}. After plan.set_state open the "
                "ledger anew."
            )
        if losses is not None:
            losses = np.asarray(losses, np.float64)
            if losses.shape != (self._num_domains,):
                raise ValueError(f"losses must be [{self._num_domains}], one per domain, got shape {losses.shape}.")
            self._losses = losses
        self._next += 1
        self._waiting.append(batch)
        if len(self._waiting) == self._every:
            self.flush()

    def flush(self) -> None:
        """Writes the line of the steps that wait, if any."""
        if not self._waiting:
            return
        first, last = self._waiting[0], self._waiting[-1]
        counts = first.counts if len(self._waiting) == 1 else np.sum([each.counts for each in self._waiting], axis=0)
        # An element that went to the device comes back with a JAX array.
        line: dict[str, Any] = {"from": int(first.step), "step": int(last.step), "counts": counts.tolist()}
        line |= {"asked": _short(last.asked), "weights": _short(last.weights)}
        if self._losses is not None:
            line["losses"] = _short(self._losses)
        events = [event for each in self._waiting for event in each.events]
        if events:
            line["events"] = events
        self._file.write(json.dumps(line) + "\n")
        # To the operating system, which keeps it if this process is killed.
        self._file.flush()
        self._waiting, self._losses = [], None

    def close(self) -> None:
        """Writes what waits, and closes the file."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def read_ledger(path: str | os.PathLike) -> xarray.Dataset:
    """Reads a ledger, also one that a run is writing.

    Args:
        path: the file.

    Returns:
        A Dataset over ``step``, the last one of each line, and ``domain``, by name: ``counts``, the rows drawn in the
        line's steps; ``epochs``, how often each domain had been seen by then; ``asked`` and ``weights`` in its last
        step; ``losses``, NaN where there are none; ``num_steps`` of the line. Domains that were not there yet, or any
        more, have counts of 0 and weights of NaN. The attribute ``events`` is a list of dictionaries.

    Raises:
        ValueError: the file is no ledger, or a line is damaged; the error has its number.
    """
    import xarray

    lines = _lines(local_path("path", path))
    starts = [line for line in lines if "ledger" in line]
    sizes: dict[str, int] = {}
    for start in starts:
        sizes |= start["domains"]
    places = {name: i for i, name in enumerate(sizes)}

    steps = [line for line in lines if "counts" in line]
    shape = len(steps), len(sizes)
    arrays = {name: np.full(shape, np.nan) for name in ("asked", "weights", "losses")}
    counts = np.zeros(shape, np.int64)
    events = [start["event"] for start in starts if "event" in start]
    where, i = np.zeros(0, int), 0
    for line in lines:
        if "ledger" in line:
            where = np.array([places[name] for name in line["domains"]])
            continue
        counts[i, where] = line["counts"]
        for name, array in arrays.items():
            if name in line:
                array[i, where] = np.array(line[name], np.float64)
        events += line.get("events", [])
        i += 1
    epochs = counts.cumsum(axis=0) / np.array(list(sizes.values()))
    variables: dict[str, Any] = {name: (("step", "domain"), array) for name, array in arrays.items()}
    variables["epochs"] = (("step", "domain"), epochs)
    variables["counts"] = (("step", "domain"), counts)
    variables["num_steps"] = (("step",), np.array([line["step"] - line["from"] + 1 for line in steps], np.int64))
    coords = {"step": [line["step"] for line in steps], "domain": list(sizes)}
    attrs = {name: starts[-1].get(name) for name in ("batch_size", "seed", "budget", "max_epochs")}
    return xarray.Dataset(variables, coords, attrs | {"sizes": sizes, "events": events})


def _short(values) -> list[float | None]:
    """Rounds to six digits, which a figure does not show the lack of; None stands for NaN, which JSON lacks."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Reads the whole lines of a ledger; a last one that a killed process left unfinished is passed over."""
    written = path.read_bytes()
    lines: list[dict[str, Any]] = []
    num_domains = 0
    for number, text in enumerate(written[: written.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(text)
            whole = _is_start(line) if not lines or "ledger" in line else _is_line(line, num_domains)
        except (ValueError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"{path} is no ledger of mixjax.live, or damaged: see line {number}.")
        if "ledger" in line:
            num_domains = len(line["domains"])
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} is no ledger of mixjax.live, or damaged: it has no line.")
    return lines


def _is_start(line) -> bool:
    """Tells whether a line begins a part of a ledger, and is whole."""
    limits = line.get("max_epochs") if isinstance(line, dict) else None
    return (
        isinstance(line, dict)
        and _is_count(line.get("ledger"), 1, _FORM)
        and _is_count(line.get("step"), 0)
        and isinstance(line.get("domains"), dict)
        and bool(line["domains"])
        and all(_is_count(size, 1) for size in line["domains"].values())
        and all(isinstance(limit, (int, float)) for limit in (limits if isinstance(limits, list) else [limits or 1]))
        and _are_events([line["event"]] if "event" in line else [])
    )


def _is_line(line, num_domains) -> bool:
    """Tells whether a line covers steps of so many domains, and is whole."""
    vectors = [line[name] for name in ("asked", "weights", "losses") if name in line] if isinstance(line, dict) else []
    return (
        isinstance(line, dict)
        and _is_count(line.get("from"), 0)
        and _is_count(line.get("step"), line["from"])
        and isinstance(line.get("counts"), list)
        and len(line["counts"]) == num_domains
        and all(_is_count(count, 0) for count in line["counts"])
        and all(isinstance(vector, list) and len(vector) == num_domains for vector in vectors)
        and all(each is None or isinstance(each, (int, float)) for vector in vectors for each in vector)
        and _are_events(line.get("events", []))
    )


def _are_events(events) -> bool:
    return isinstance(events, list) and all(
        isinstance(event, dict) and isinstance(event.get("event"), str) and _is_count(event.get("step"), 0)
        for event in events
    )


def _is_count(value, least, most=2**62) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _cut(path: Path, plan: Plan) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns the lines of a ledger before the plan's step, and the event that tells what was cut or filled in."""
    lines = _lines(path) if path.exists() and path.stat().st_size else []
    kept = [line for line in lines if "counts" in line and line["step"] < plan.step]
    # A start belongs to the lines after it.
    starts = [line for line in lines if "ledger" in line and line["step"] < plan.step]
    kept = sorted([*starts, *kept], key=lambda line: (line.get("from", line["step"]), "counts" in line))
    end = max((line["step"] + 1 for line in lines if "counts" in line), default=0)
    if end and not plan.step:
        # A plan that was not restored yet would cut all of it.
        raise ValueError(
            f"{path} holds {end} steps, and the plan is at step 0: call plan.set_state first, or take another file for "
            "a new run."
        )
    covered = max((line["step"] + 1 for line in kept if "counts" in line), default=0)
    if covered < plan.step:
        kept += _filled(kept, covered, plan)
    if end > plan.step:
        return kept, {"step": plan.step, "event": "ledger cut", "steps": [plan.step, end - 1]}
    if end < plan.step:
        return kept, {"step": plan.step, "event": "ledger filled in", "steps": [end, plan.step - 1]}
    return kept, None


def _filled(kept, covered, plan):
    """Makes the line of steps that no whole line covers, by what the plan has drawn; their weights are not known."""
    names, starts = list(plan.sizes), [line for line in kept if "ledger" in line]
    drawn: dict[str, int] = {}
    domains: list[str] = names
    for line in kept:
        if "ledger" in line:
            domains = list(line["domains"])
            continue
        for name, count in zip(domains, line["counts"], strict=True):
            drawn[name] = drawn.get(name, 0) + count
    total = dict(zip(names, plan.get_state()["drawn"], strict=True))
    counts = [max(total.get(name, 0) - drawn.get(name, 0), 0) for name in domains]
    nothing = [None] * len(domains)
    line = {"from": covered, "step": plan.step - 1, "counts": counts, "asked": nothing, "weights": nothing}
    return [line] if starts else [{"ledger": _FORM, "step": 0, "domains": dict(plan.sizes)}, line]
