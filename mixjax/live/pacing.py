"""Keeps a plan within ``max_epochs`` and ``budget``: what each domain may still give, and when the run is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live.arguments import limits_of
from mixjax.live.limits import NO_LIMIT, project
from mixjax.live.position import Position

__all__ = ["Ended", "Paced", "Pacing"]


class Ended(Exception):
    """Tells that a plan has no further batch.

    Attributes:
        why: the reason, as the entries of an event for the ledger.
    """

    def __init__(self, reason: str, **why: Any):
        """Takes the reason, and what else belongs to it."""
        super().__init__(reason)
        self.why = {"reason": reason, **why}


class Paced(NamedTuple):
    """Holds what limits leave of the weights of a step.

    Attributes:
        weights: ``[D]``, the sampling weights within the limits.
        rows_left: int64 ``[D]``, rows that may still be drawn of each domain.
        is_below: whether pacing alone leaves less than the weights need, so that domains are spent early.
    """

    weights: NDArray[np.floating]
    rows_left: NDArray[np.int64]
    is_below: bool


class Pacing:
    """Limits each domain's share to what it has left over what the run has left, in rows or in tokens.

    Attributes:
        row_limits: int64 ``[D]``, rows that may be drawn of each domain in the whole run.
        is_limited: whether ``max_epochs`` limits any domain.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        max_epochs: ArrayLike | None,
        budget: int | None,
        totals: list[int] | None = None,
    ):
        """Checks that the limits leave what the budget asks for.

        Args:
            sizes: number of examples of each domain.
            batch_size: rows of all hosts together.
            max_epochs: how often each example may be drawn, as :class:`mixjax.live.Plan` takes it.
            budget: rows of the whole run, or tokens where ``totals`` are given; None goes on without end.
            totals: tokens of all examples of each domain; None counts rows.

        Raises:
            ValueError: limits out of range, or below the budget.
        """
        self._names, self._batch_size, self._budget = list(sizes), batch_size, budget
        examples = np.array(list(sizes.values()), np.int64)
        self.row_limits = limits_of(examples, max_epochs)
        self.is_limited = bool((self.row_limits != NO_LIMIT).any())
        rows = np.where(self.row_limits == NO_LIMIT, np.inf, self.row_limits.astype(np.float64))
        self._token_limits = None if totals is None else rows * (np.array(totals, np.float64) / examples)

        left = f"max_epochs = {max_epochs} leaves"
        unit, amounts = ("rows", rows) if self._token_limits is None else ("tokens", self._token_limits)
        if budget is not None and amounts.sum() < budget:
            raise ValueError(
                f"{left} {amounts.sum():.0f} {unit} of all domains together, and the budget is {budget}: raise "
                "max_epochs or lower the budget."
            )
        if rows.sum() < batch_size:
            raise ValueError(
                f"{left} {rows.sum():.0f} rows of all domains together, and a batch is {batch_size}: raise max_epochs "
                "or lower batch_size."
            )

    def is_over(self, step: int, at: Position) -> bool:
        """Tells whether the budget leaves no further batch, whatever its weights are."""
        return self._budget is not None and self._left_of_run(step, at) < self._batch_size

    def check_batch(self, tokens: int, at: Position) -> None:
        """Ends the plan before a batch of so many tokens, if the budget does not hold it.

        Raises:
            Ended: the batch goes beyond the budget.
        """
        if self._budget is not None and at.spent + tokens > self._budget:
            raise Ended("budget reached")

    def paced(self, q: NDArray[np.float32], step: int, at: Position) -> Paced:
        """Projects the weights of a step onto its limits.

        Raises:
            Ended: the budget is reached, or the weighted domains have less than a batch left.
        """
        if self.is_over(step, at):
            raise Ended("budget reached")
        if not self.is_limited:
            return Paced(q, self.row_limits, False)
        # A plan that is restored with lower limits may have drawn more than those.
        rows_left = np.where(self.row_limits == NO_LIMIT, NO_LIMIT, np.maximum(self.row_limits - at.drawn, 0))
        # A domain of weight 0 does not fill up a batch.
        if rows_left[q > 0].sum(dtype=np.float64) < self._batch_size:
            raise Ended("rows spent", rows_left={self._names[d]: int(rows_left[d]) for d in np.flatnonzero(q > 0)})
        has_rows = np.where(rows_left > 0, np.inf, 0.0)
        limits = has_rows
        if self._budget is not None:
            limits = self._left(rows_left, at) / self._left_of_run(step, at)
        projected = project(q, limits)
        if projected is not None:
            return Paced(projected, rows_left, False)
        # Weights that lie on few domains may ask for more than pacing allows; then those domains are spent early.
        projected = project(q, has_rows)
        assert projected is not None, "a domain of positive weight has rows"
        return Paced(projected, rows_left, True)

    def _left(self, rows_left, at):
        """Returns the rows or tokens that each domain may still give."""
        if self._token_limits is None:
            return np.where(rows_left == NO_LIMIT, np.inf, rows_left)
        # The last epoch may be a part of one, of which only the mean length is known. A row has a token at least.
        return np.where(rows_left > 0, np.maximum(self._token_limits - at.tokens, rows_left), 0.0)

    def _left_of_run(self, step, at):
        """Returns the rows or tokens of the batches that the budget still holds."""
        assert self._budget is not None
        if self._token_limits is None:
            return (self._budget // self._batch_size - step) * self._batch_size
        return self._budget - at.spent
