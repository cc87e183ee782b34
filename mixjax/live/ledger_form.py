"""Defines the lines of a ledger: how they are written, read and checked.

There are three kinds. A start names the domains of the lines after it and says what was drawn before; there is one
every few hundred kilobytes, so that the end of a long file tells all. A line of steps has counts, and the end of a plan
has neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mixjax.live.plan import Plan

__all__ = ["FORM", "has_steps", "is_start", "read_lines", "start_line", "steps_line"]

FORM = 1
"""Version of the file's form; a file of a newer form is refused."""

# Vectors of a line whose numbers may be of any size, or unknown.
_SHARES = ("asked", "weights", "loss_weights", "losses")

# Larger numbers do not fit into arrays.
_MOST = 2**62


def is_start(line: dict[str, Any]) -> bool:
    """Tells whether a line begins a part of a ledger."""
    return "ledger" in line


def has_steps(line: dict[str, Any]) -> bool:
    """Tells whether a line says what was drawn in some steps."""
    return "counts" in line


def start_line(plan: Plan, event: dict[str, Any] | None, step: int, drawn: ArrayLike) -> dict[str, Any]:
    """Returns the line that begins the part of a ledger which a plan goes on to write.

    Args:
        plan: the plan.
        event: what happened before, or None.
        step: the next step.
        drawn: ``[D]``, rows drawn of each domain before that step, so that the lines from here on tell all.
    """
    line: dict[str, Any] = {
        "ledger": FORM,
        "step": step,
        "domains": dict(plan.sizes),
        "drawn": np.asarray(drawn).tolist(),
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "unit": "rows" if plan.token_totals is None else "tokens",
        "budget": plan.budget,
        "max_epochs": None if plan.max_epochs is None else _finite(np.asarray(plan.max_epochs, np.float64).tolist()),
    }
    return line | {"event": event} if event else line


def _finite(limits):
    """Puts None for limits without end, which JSON lacks."""
    if isinstance(limits, list):
        return [_finite(limit) for limit in limits]
    return limits if np.isfinite(limits) else None


def steps_line(
    steps: tuple[int, int],
    counts: ArrayLike,
    tokens: ArrayLike | None,
    shares: Mapping[str, ArrayLike],
    events: list[dict[str, Any]],
) -> str:
    """Returns the text of a line about some steps.

    Args:
        steps: the first and the last one.
        counts: ``[D]``, rows drawn.
        tokens: ``[D]``, tokens drawn; None where they are not counted.
        shares: ``[D]`` each, numbers of which six digits are enough, by name.
        events: what happened in these steps.
    """
    parts = {"from": str(int(steps[0])), "step": str(int(steps[1])), "counts": json.dumps(np.asarray(counts).tolist())}
    if tokens is not None:
        parts["tokens"] = json.dumps(np.asarray(tokens).tolist())
    parts |= {name: _short(np.asarray(values)) for name, values in shares.items()}
    if events:
        parts["events"] = json.dumps(events)
    return "{" + ", ".join(f'"{name}": {text}' for name, text in parts.items()) + "}\n"


def _short(values: np.ndarray) -> str:
    """Writes numbers with six digits, which a figure does not show the lack of, and those that JSON lacks as null."""
    # Python's own JSON writer takes three times as long, and a ledger has little time.
    texts = ("%.6g " * values.size % tuple(values.tolist())).split()
    if not np.isfinite(values).all():
        texts = [text if finite else "null" for text, finite in zip(texts, np.isfinite(values), strict=True)]
    return "[" + ", ".join(texts) + "]"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the whole lines of a ledger; a last one that a killed process left unfinished is passed over.

    Raises:
        ValueError: the file is no ledger, or a line is damaged; the error has its number.
    """
    written = path.read_bytes()
    lines: list[dict[str, Any]] = []
    num_domains = 0
    for number, text in enumerate(written[: written.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(text)
            whole = _is_whole_start(line) if not lines or is_start(line) else _is_whole_line(line, num_domains)
        except (ValueError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise ValueError(f"{path} is no ledger of mixjax.live, or damaged: see line {number}.")
        if is_start(line):
            num_domains = len(line["domains"])
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} is no ledger of mixjax.live, or damaged: it has no line.")
    return lines


def _is_whole_start(line) -> bool:
    """Tells whether a line begins a part of a ledger, and is whole."""
    return (
        isinstance(line, dict)
        and _is_count(line.get("ledger"), 1, FORM)
        and _is_count(line.get("step"), 0)
        and isinstance(line.get("domains"), dict)
        and bool(line["domains"])
        and all(_is_count(size, 1) for size in line["domains"].values())
        and _are_drawn(line.get("drawn", [0] * len(line["domains"])), len(line["domains"]))
        and _are_limits(line.get("max_epochs"), len(line["domains"]))
        and _are_events([line["event"]] if "event" in line else [])
    )


def _are_drawn(drawn, num_domains) -> bool:
    return isinstance(drawn, list) and len(drawn) == num_domains and all(_is_count(each, 0) for each in drawn)


def _are_limits(limits, num_domains) -> bool:
    """Tells whether limits are a number or None, or a list of them with one for each domain."""
    if isinstance(limits, list):
        return len(limits) == num_domains and all(map(_is_limit, limits))
    return _is_limit(limits)


def _is_limit(limit) -> bool:
    return isinstance(limit, (int, float, type(None)))


def _is_whole_line(line, num_domains) -> bool:
    """Tells whether a line covers steps of so many domains, or ends them, and is whole."""
    if not isinstance(line, dict) or not has_steps(line):
        return isinstance(line, dict) and _is_count(line.get("step"), 0) and _are_events([line.get("event")])
    vectors = [line[name] for name in _SHARES if name in line]
    numbers = [line[name] for name in ("counts", "tokens") if name in line]
    return (
        _is_count(line.get("from"), 0)
        and _is_count(line.get("step"), line["from"])
        and all(isinstance(vector, list) and len(vector) == num_domains for vector in numbers + vectors)
        # Numbers are not checked one by one, since long ledgers have a hundred million of them.
        and all(set(map(type, vector)) == {int} and min(vector) >= 0 for vector in numbers)
        and all(max(vector) <= _MOST for vector in numbers)
        and all(set(map(type, vector)) <= {int, float, type(None)} for vector in vectors)
        and _are_events(line.get("events", []))
    )


def _are_events(events) -> bool:
    return isinstance(events, list) and all(
        isinstance(event, dict) and isinstance(event.get("event"), str) and _is_count(event.get("step"), 0)
        for event in events
    )


def _is_count(value, least, most=_MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
