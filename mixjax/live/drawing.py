"""Draws the batch of a step from where the plan stands and from the weights in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live.batch import Batch
from mixjax.live.events import as_events
from mixjax.live.limits import within_rows_left
from mixjax.live.loss_mass import share_mass
from mixjax.live.pacing import Paced, Pacing
from mixjax.live.position import Position
from mixjax.live.row_lengths import RowLengths
from mixjax.live.rows import Rows
from mixjax.live.spread import Spread
from mixjax.live.tokens_carried import carry_tokens
from mixjax.samplers.host_carried import UNIT, carry_counts, fixed_point

__all__ = ["Drawing"]


class _Split(NamedTuple):
    """Holds how a batch is split among the domains.

    Attributes:
        counts: int64 ``[D]``, rows.
        carry: int64 ``[D]``, what is owed afterwards.
        written_off: int64 ``[D]``, what was owed to domains that do not have it.
        tokens: int64 ``[D]``; None in a plan that counts rows.
        lengths: int64 ``[B]``, tokens of each row; None in a plan that counts rows.
    """

    counts: NDArray[np.int64]
    carry: NDArray[np.int64]
    written_off: NDArray[np.int64]
    tokens: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None


class Drawing:
    """Computes the batches of a plan from where the plan stands.

    Only caches change when a batch is computed. So a step may be drawn twice, and steps in any order.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        seed: int,
        host: tuple[int, int],
        max_epochs: ArrayLike | None,
        budget: int | None,
        lengths: list[NDArray[np.integer]] | None,
    ):
        """Takes the arguments of :class:`mixjax.live.Plan`, which has checked them."""
        self._names, self._batch_size, self._host = list(sizes), batch_size, host
        self._sizes = np.array(list(sizes.values()), np.int64)
        self._rows = Rows(seed, sizes)
        self._lengths = None if lengths is None else RowLengths(lengths, seed, sizes)
        self.totals = None if self._lengths is None else self._lengths.totals
        self.pacing = Pacing(sizes, batch_size, max_epochs, budget, totals=self.totals)
        self.spread = Spread(self._names)

    def draw(
        self, step: int, at: Position, asked: NDArray[np.float32], c: NDArray[np.float32] | None
    ) -> tuple[Batch, Position]:
        """Returns the batch of a step, and where the plan stands after it.

        Args:
            step: the step.
            at: where the plan stands.
            asked: float32 ``[D]``, the sampling weights.
            c: float32 ``[D]``, the loss weights; None means the sampling weights.

        Raises:
            Ended: there is no further batch.
        """
        paced = self.pacing.paced(asked, step, at)
        q = paced.weights
        split = self._by_rows(at, paced) if self._lengths is None else self._by_tokens(at, paced)
        counts = split.counts
        after = at._replace(drawn=at.drawn + counts, carry=split.carry, is_below=paced.is_below, events=())
        if split.tokens is not None:
            after = after._replace(tokens=at.tokens + split.tokens, spent=at.spent + int(split.tokens.sum()))

        domain_ids = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
        row_numbers = np.arange(self._batch_size) - np.repeat(np.cumsum(counts) - counts, counts)
        row_numbers += at.drawn[domain_ids]
        factors, mass = self._shared_mass(at.mass, q if c is None else c, split, c is None)
        waiting = self._waiting(at, mass, q)
        near_one, fallen = self.spread.after(at.near_one, asked, c)
        after = after._replace(mass=mass, waiting=at.waiting | waiting, near_one=near_one)

        index, num_hosts = self._host
        mine = slice(index, None, num_hosts)
        row_weights = factors[domain_ids[mine]]
        lengths = None
        if split.lengths is not None:
            lengths = split.lengths[mine].astype(np.int32)
            row_weights = row_weights * lengths
        batch = Batch(
            step=step,
            domain_ids=domain_ids[mine],
            rows=self._rows.examples(domain_ids[mine], row_numbers[mine]),
            row_weights=row_weights.astype(np.float32),
            counts=counts.astype(np.int32),
            weights=q.astype(np.float32),
            asked=asked,
            events=as_events(
                self._events(step, at, after, split, waiting) + [{"step": step, **each} for each in fallen]
            ),
            tokens=split.tokens,
            lengths=lengths,
        )
        return batch, after

    def _by_rows(self, at: Position, paced: Paced) -> _Split:
        owed = at.carry + fixed_point(paced.weights, self._batch_size)
        owed, written_off = within_rows_left(owed, paced.rows_left, paced.weights)
        counts, carry = carry_counts(owed, np.zeros_like(owed), self._batch_size)
        return _Split(counts, carry, written_off)

    def _by_tokens(self, at: Position, paced: Paced) -> _Split:
        assert self._lengths is not None
        length_of, drawn = self._lengths.of, at.drawn.tolist()
        found = carry_tokens(
            at.carry,
            paced.weights,
            self._batch_size,
            lambda domain, number: length_of(domain, drawn[domain] + number),
            paced.rows_left,
        )
        self.pacing.check_batch(int(found.tokens.sum()), at)
        return _Split(found.counts, found.carry, found.written_off, tokens=found.tokens, lengths=found.lengths)

    def _shared_mass(self, waiting, c, split, same_as_sampling):
        """Returns the loss weight of a row of each domain, or of a token, and what goes on waiting for rows."""
        amounts = split.counts if split.tokens is None else split.tokens
        if same_as_sampling and not waiting.any():
            return np.full(amounts.size, 1.0 / amounts.sum()), waiting
        return share_mass(waiting, c, amounts)

    def _waiting(self, at, mass, q):
        """Names the domains without sampling weight whose waiting loss weight has come to more than a batch's."""
        return {self._names[d] for d in np.flatnonzero((mass > 1.0) & (q == 0))} - at.waiting

    def _events(self, step: int, at: Position, after: Position, split: _Split, waiting: set[str]):
        """Lists what the ledger is to know about a step beside its counts."""

        def event(kind, **entries) -> dict[str, Any]:
            return {"step": step, "event": kind, **entries}

        def named(which) -> list[str]:
            return [self._names[d] for d in np.flatnonzero(which)]

        events = list(at.events)
        if after.is_below and not at.is_below:
            events.append(event("limits below the weights"))
        if split.written_off.any():
            lost = split.written_off / UNIT
            unit = "rows" if split.tokens is None else "tokens"
            events.append(event("written off", **{unit: {self._names[d]: float(lost[d]) for d in lost.nonzero()[0]}}))
        second = named((at.drawn <= self._sizes) & (after.drawn > self._sizes))
        if second:
            events.append(event("begins epoch 2", domains=second))
        if self.pacing.is_limited:
            limits = self.pacing.row_limits
            spent = named((at.drawn < limits) & (after.drawn >= limits))
            if spent:
                events.append(event("limit reached", domains=spent))
        if waiting:
            events.append(event("loss weight waits for rows", domains=sorted(waiting)))
        return events
