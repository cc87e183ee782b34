"""Tabulates a ledger for the terminal: what was drawn of each domain, and what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray

__all__ = ["check_steps", "drawn_of", "ledger_lines"]

# Names beyond this are counted only.
_MOST_NAMES = 8


def check_steps(ledger: xarray.Dataset) -> None:
    """Raises a ValueError if a ledger has no step yet."""
    if not ledger.sizes["step"]:
        raise ValueError("the ledger has no step yet.")


def drawn_of(ledger: xarray.Dataset) -> tuple[str, NDArray[np.number]]:
    """Returns ``"tokens"`` or ``"rows"``, and how many were drawn of each domain in each line, ``[lines, D]``.

    Tokens are those drawn where all lines count them.
    """
    if np.isfinite(ledger.tokens.values).all():
        return "tokens", ledger.tokens.values.astype(np.int64)
    return "rows", ledger.counts.values


def ledger_lines(ledger: xarray.Dataset) -> list[str]:
    """Tabulates a ledger: a line for each domain, one on how many share the weight, and one for each kind of event.

    Args:
        ledger: from :func:`mixjax.live.read_ledger`, of at least one step.

    Raises:
        ValueError: the ledger has no step yet.
    """
    check_steps(ledger)
    unit, amounts = drawn_of(ledger)
    rows, drawn, sizes = ledger.counts.values.sum(axis=0), amounts.sum(axis=0), ledger.attrs["sizes"]
    columns = {
        "domain": [str(name) for name in ledger.domain.values],
        "rows": [f"{count:,}" for count in rows],
        "tokens": [f"{count:,}" for count in drawn],
        "share": [f"{count / max(drawn.sum(), 1):.4f}" for count in drawn],
        "epochs": [f"{count / sizes[str(name)]:.3g}" for count, name in zip(rows, ledger.domain.values, strict=True)],
        "asked": [_number(weight) for weight in ledger.asked.values[-1]],
        "in force": [_number(weight) for weight in ledger.weights.values[-1]],
    }
    if unit == "rows":
        del columns["tokens"]
    last = int(ledger.step.values[-1])
    tokens = f" and {drawn.sum():,} tokens" if unit == "tokens" else ""
    return [
        f"{rows.sum():,} rows{tokens} in the steps 0 to {last:,}",
        *_table(columns),
        *_spread_lines(ledger.weights.values, ledger.step.values),
        *_event_lines(ledger.attrs["events"]),
    ]


def _table(columns: dict[str, list[str]]) -> list[str]:
    """Puts columns side by side: names on the left, numbers below each other."""
    padded = []
    for head, cells in columns.items():
        width = max(map(len, [head, *cells]))
        padded.append([cell.rjust(width) if padded else cell.ljust(width) for cell in [head, *cells]])
    return ["  ".join(row) for row in zip(*padded, strict=True)]


def _spread_lines(weights: NDArray[np.floating], steps: NDArray[np.integer]) -> list[str]:
    """Says over how many domains the weights in force are spread, and whether that is near one domain only."""
    # Imported here, because it loads JAX, which nothing else about a ledger needs.
    from mixjax.rules import effective_domains

    known = np.isfinite(weights).all(axis=1)
    if not known.any():
        return []
    numbers = np.asarray(effective_domains(weights[known]))
    least = int(numbers.argmin())
    first = f"least {numbers[least]:.2f} at step {steps[known][least]:,}"
    line = f"effective domains: {numbers[-1]:.2f} of {weights.shape[1]}, {first}"
    # With two domains any weights but equal ones come to less than 2, which is no fault.
    return [line + ("; the weights come near a single domain" if numbers[-1] < 2 < weights.shape[1] else "")]


def _event_lines(events: Sequence[dict[str, Any]]) -> list[str]:
    """Says each kind of event in a line, in the order in which they first happened."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        kinds.setdefault(event["event"], []).append(event)
    return [f"{kind}: {_told(found)}" for kind, found in kinds.items()]


def _told(events: list[dict[str, Any]]) -> str:
    """Says when events of one kind happened, and to which domains."""
    first, last = events[0], events[-1]
    if "domains" in first:
        return _listed([f"{name} (step {event['step']:,})" for event in events for name in event["domains"]])
    if "reason" in first:
        left = [f"{name} {count:,}" for name, count in last.get("rows_left", {}).items()]
        return f"at step {last['step']:,}, {last['reason']}" + (f"; rows left: {_listed(left)}" if left else "")
    times = f"once, at step {first['step']:,}"
    if len(events) > 1:
        times = f"{len(events):,} times, first at step {first['step']:,}, last at {last['step']:,}"
    unit = "tokens" if "tokens" in first else "rows"
    lost: dict[str, float] = {}
    for event in events:
        for name, amount in event.get(unit, {}).items():
            lost[name] = lost.get(name, 0.0) + amount
    most = sorted(lost, key=lambda name: -lost[name])
    return times + (f"; {unit}: " + _listed([f"{name} {lost[name]:,.3g}" for name in most]) if lost else "")


def _listed(texts: list[str]) -> str:
    shown = ", ".join(texts[:_MOST_NAMES])
    return shown + (f" and {len(texts) - _MOST_NAMES:,} more" if len(texts) > _MOST_NAMES else "")


def _number(value):
    return f"{value:.4f}" if np.isfinite(value) else "-"
