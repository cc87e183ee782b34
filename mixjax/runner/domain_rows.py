"""Tells where a run stands by domain: weights, losses, what was drawn against what was asked for, epochs."""

from __future__ import annotations

import math
from typing import NamedTuple

from mixjax.live.ledger_tail import Tail
from mixjax.runner.texts import weight_kind
from mixjax.runner.watching import Progress, View

__all__ = ["DomainRow", "domain_rows", "worst_domain"]


class DomainRow(NamedTuple):
    """Holds the numbers of a domain; NaN where nothing tells one.

    Attributes:
        name: the domain.
        q: its sampling weight in force.
        c: its loss weight.
        loss: its last loss.
        drawn: its share of the rows drawn lately.
        asked: its share of the rows that the weights asked for in the same steps.
        epochs: how often its rows were drawn since the first step.
        limit: the most epochs allowed; infinite without a limit.
    """

    name: str
    q: float
    c: float
    loss: float
    drawn: float = math.nan
    asked: float = math.nan
    epochs: float = math.nan
    limit: float = math.inf


def domain_rows(view: View) -> list[DomainRow]:
    """Returns a row for each domain: from the ledger of a live mix, or else from the records of a sweep.

    Args:
        view: what is known of the run.

    Returns:
        Rows in the order of the run's domains; none where nothing is told by domain.
    """
    if view.ledger is not None:
        return _of_ledger(view.ledger)
    told = [part for part in view.parts if part.by_domain]
    return _of_records(told[-1]) if told else []


def _of_ledger(tail: Tail) -> list[DomainRow]:
    drawn, asked = tail.recent / max(tail.recent.sum(), 1), tail.asked_rows / max(tail.asked_rows.sum(), 1.0)
    is_known = bool(tail.recent.sum())
    # A ledger of an older version does not say what was drawn before the steps that were read.
    epochs = tail.drawn / tail.sizes if tail.since == 0 else [math.nan] * len(tail.domains)
    return [
        DomainRow(
            name,
            q=float(tail.weights[i]),
            c=float(tail.loss_weights[i]),
            loss=float(tail.losses[i]),
            drawn=float(drawn[i]) if is_known else math.nan,
            asked=float(asked[i]) if is_known else math.nan,
            epochs=float(epochs[i]),
            limit=float(tail.max_epochs[i]),
        )
        for i, name in enumerate(tail.domains)
    ]


def _of_records(part: Progress) -> list[DomainRow]:
    metrics = {weight_kind(name, by_domain=True) or name: values for name, values in part.by_domain.items()}
    # Test losses tell more than losses of training, where both are there.
    losses = sorted((name for name in metrics if "loss" in name), key=lambda name: "test" not in name)
    names = list(next(iter(part.by_domain.values())))

    def number(kind, name):
        value = metrics.get(kind, {}).get(name)
        return math.nan if value is None else float(value)

    loss = next(iter(losses), "")
    return [DomainRow(name, number("q", name), number("c", name), number(loss, name)) for name in names]


def worst_domain(rows: list[DomainRow]) -> DomainRow | None:
    """Returns the domain with the highest loss, or None where no loss is known."""
    known = [row for row in rows if math.isfinite(row.loss)]
    return max(known, key=lambda row: row.loss, default=None)
