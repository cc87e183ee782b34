"""Says which rows the next batches hold, from a small state that every host computes alike."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live import restoring
from mixjax.live.arguments import check_host, check_integer, check_timeout, limits_of, named_sizes
from mixjax.live.limits import NO_LIMIT, project, within_rows_left
from mixjax.live.rows import Rows
from mixjax.live.weights import Schedule
from mixjax.samplers.host_carried import UNIT, carry_counts, fixed_point

__all__ = ["Batch", "Plan"]


class Batch(NamedTuple):
    """Holds what one host reads in one step, and what all hosts together do.

    Attributes:
        step: the step's number, from 0 on.
        domain_ids: int32 ``[B / hosts]``, the domain of each row of this host, in ascending order.
        rows: int64 ``[B / hosts]``, the example of its domain that each row is.
        row_weights: float32 ``[B / hosts]``, the factor of each row's loss. Multiply and sum, over all hosts.
        counts: int32 ``[D]``, rows of each domain in the batch of all hosts.
        weights: float32 ``[D]``, the sampling weights in force, after limits.
        asked: float32 ``[D]``, the sampling weights that were published for this step, before limits.
        events: what happened in this step beside drawing, as dictionaries that the ledger writes down.
    """

    step: int
    domain_ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    row_weights: NDArray[np.float32]
    counts: NDArray[np.int32]
    weights: NDArray[np.float32]
    asked: NDArray[np.float32]
    events: tuple[dict[str, Any], ...] = ()


class _Position(NamedTuple):
    """Holds where the plan stands before a step; arrays are never changed in place.

    Attributes:
        drawn: int64 ``[D]``, rows drawn of each domain so far.
        carry: int64 ``[D]``, rows owed, in units of 2⁻³².
        mass: float64 ``[D]``, loss weight that waits for rows of its domain.
        events: what happened since the step before, for the next batch.
    """

    drawn: NDArray[np.int64]
    carry: NDArray[np.int64]
    mass: NDArray[np.float64]
    events: tuple[dict[str, Any], ...] = ()


class Plan:
    r"""Draws batches whose domain counts follow sampling weights that may change after every step.

    The batch of step ``t`` is a pure function of the seed, of ``t`` and of the weights published so far. It does not
    depend on the number of hosts, on worker processes or on how many batches are read ahead.

    *Counts.* A domain's rows stay within one row above, and ``H_D - 1`` rows below, the sum over the steps of
    ``B q_d``, see :func:`mixjax.samplers.carry`. Row ``k`` of domain ``d`` is example ``k mod size`` of a permutation
    that is new in every epoch, see :func:`mixjax.live.permutation.permuted`.

    *Lag.* Weights that are published after step ``s`` are in force from step ``s + lag``. Until then the first weights
    are. The plan only hands out steps whose weights are known, so a loader may read ``lag`` steps ahead. A step without
    weights raises at once in the thread that publishes, since nobody else could help, and waits in any other.

    *Loss weights.* Where none are given, ``c`` is ``q``, and every row weighs ``1 / B``: over the steps that is exact,
    because the counts are. Otherwise each domain's ``c`` is added up until the domain has rows, which share it.

    *Limits.* ``max_epochs`` limits how often an example is drawn. With a ``budget`` the plan paces: no domain gets more
    in a step than ``u_d``, its rows left over the rows of the run left, so that it lasts to the end. The weights in
    force are the projection ``min(u, lambda q)``. Rows that a domain is owed and does not have are written off. The
    plan ends where the domains of positive weight have less than a batch left.

    Args:
        sizes: number of examples of each domain, from 1 to 2^40; a sequence, or a mapping from names.
        batch_size: ``B``, rows of all hosts together.
        weights: the first sampling weights ``q``, ``[D]``, non-negative; normalised here.
        loss_weights: the first loss weights ``c``, ``[D]``, normalised here; None means ``q``.
        seed: a non-negative integer; decides the order of the examples.
        lag: steps from a publication to its effect, at least 1.
        host: this host's index and the number of hosts, which has to divide ``B``. Host ``i`` reads the rows
            ``i, i + hosts, ...`` of the batch.
        max_epochs: how often each example may be drawn, a positive number or one for each domain; None for no limit.
        budget: number of rows of the whole run; the plan ends with the last full batch. None goes on without end.
        timeout: seconds for which a thread that does not publish waits for weights.

    Raises:
        ValueError: an argument out of range, or limits that leave fewer rows than the budget; the error names it.

    Example:
        >>> import mixjax
        >>> plan = mixjax.live.Plan({"web": 1000, "code": 50}, batch_size=4, weights=[0.75, 0.25], lag=1)
        >>> batch = next(plan)
        >>> batch.counts.tolist(), batch.domain_ids.tolist()
        ([3, 1], [0, 0, 0, 1])
        >>> plan.publish(batch.step, [0.5, 0.5])
        >>> next(plan).counts.tolist()
        [2, 2]
    """

    def __init__(
        self,
        sizes: Sequence[int] | Mapping[str, int],
        batch_size: int,
        weights: ArrayLike,
        loss_weights: ArrayLike | None = None,
        seed: int = 0,
        lag: int = 8,
        host: tuple[int, int] = (0, 1),
        max_epochs: ArrayLike | None = None,
        budget: int | None = None,
        *,
        timeout: float = 600.0,
    ):
        """Starts before step 0."""
        self.sizes = named_sizes(sizes)
        num_domains = len(self.sizes)
        check_integer("batch_size", batch_size, 1, 2**24 - 1)
        check_integer("seed", seed, 0, 2**64 - 1)
        check_host(host, batch_size)
        check_timeout(timeout)
        # Plain numbers, since the state and the ledger are JSON.
        self.batch_size, self.seed = int(batch_size), int(seed)
        self.host, self.timeout = host, timeout
        self._schedule = Schedule(num_domains, weights, loss_weights, lag)
        self._limits = limits_of(np.array(list(self.sizes.values()), np.int64), max_epochs)
        if budget is not None:
            check_integer("budget", budget, batch_size, 2**62)
        self.max_epochs, self.budget = max_epochs, None if budget is None else int(budget)
        self._check_reachable()

        zeros = np.zeros(num_domains, np.int64)
        self._step = 0
        self._now = _Position(zeros, zeros, np.zeros(num_domains))
        self._snapshots = {0: self._now}
        self._rows = Rows(seed, self.sizes)
        self._changed = threading.Condition()
        self._publisher = threading.get_ident()
        self._closed = False
        self._restored = 0

    @property
    def lag(self) -> int:
        """Returns the number of steps from a publication to its effect."""
        return self._schedule.lag

    @property
    def first_weights(self) -> NDArray[np.float32]:
        """Returns the sampling weights that the plan was made with, float32 ``[D]``."""
        return self._schedule.first[0]

    @property
    def step(self) -> int:
        """Returns the number of the step that ``next`` hands out."""
        return self._step

    @property
    def next_to_publish(self) -> int:
        """Returns the number of the step that :meth:`publish` or :meth:`keep` takes next."""
        return self._schedule.next_to_publish

    @property
    def num_restored(self) -> int:
        """Counts the calls of :meth:`set_state`; batches drawn before the last one belong to another course."""
        return self._restored

    def __iter__(self) -> Plan:
        """Returns the plan, which is its own iterator."""
        return self

    def __next__(self) -> Batch:
        """Draws the batch of the next step."""
        with self._changed:
            self._wait_for_weights()
            if self.budget is not None and self._step >= self.budget // self.batch_size:
                raise StopIteration
            return self._draw()

    def is_known(self) -> bool:
        """Tells whether ``next`` would return, or end the plan, without waiting for weights."""
        with self._changed:
            return self._closed or self._schedule.knows(self._step)

    def publish(self, step: int, weights: ArrayLike, loss_weights: ArrayLike | None = None) -> None:
        """Sets the weights that are in force from step ``step + lag`` on.

        Args:
            step: the step that was trained last. Every step is published, or kept, once and in order.
            weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
            loss_weights: loss weights ``c``, ``[D]``, normalised here; None means ``q``.

        Raises:
            ValueError: another step than the next one, or weights that are not non-negative ``[D]``.
        """
        with self._changed:
            self._schedule.publish(step, weights, loss_weights)
            self._after_publication()

    def keep(self, step: int) -> None:
        """Leaves the weights as they are; takes the place of :meth:`publish` after a step that brought nothing new."""
        with self._changed:
            self._schedule.keep(step)
            self._after_publication()

    def take_back(self, batch: Batch) -> None:
        """Goes back to before a batch that was drawn and not used, so that ``next`` draws it again.

        Readers call it with the oldest batch that they read ahead and did not hand out. Where training published the
        batch's step, or drew no such batch, the plan stays where it is.

        Args:
            batch: drawn by this plan, since the last :meth:`set_state`.
        """
        with self._changed:
            if batch.step < self._step and batch.step in self._snapshots:
                self._step, self._now = batch.step, self._snapshots[batch.step]
                self._snapshots = {step: at for step, at in self._snapshots.items() if step <= batch.step}

    def close(self) -> None:
        """Ends the plan: threads that wait for weights stop as at the end of the data."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def get_state(self) -> dict[str, Any]:
        """Returns the plan before the step after the last published one, however many batches were read ahead.

        Returns:
            A dictionary for JSON: numbers, strings, lists. It is the same on every host.
        """
        with self._changed:
            step = self._schedule.next_to_publish
            at = self._snapshots[min(step, max(self._snapshots))]
            return {
                "version": restoring.VERSION,
                "seed": self.seed,
                "batch_size": self.batch_size,
                "sizes": dict(self.sizes),
                "step": min(step, max(self._snapshots)),
                "drawn": at.drawn.tolist(),
                "carry": at.carry.tolist(),
                "mass": at.mass.tolist(),
                **self._schedule.get_state(),
            }

    def set_state(self, state: Mapping[str, Any], domains: Literal["same", "changed"] = "same") -> None:
        """Puts the plan back to where :meth:`get_state` was called, on any number of hosts.

        Args:
            state: the dictionary, possibly from JSON.
            domains: ``"changed"`` allows that domains were added or removed since, by name. New ones start at their
                first example, with the share that this plan's first weights give them. Rows owed to removed ones are
                written off. The next batch has an event that says so.

        Raises:
            ValueError: the state is of another seed, batch size, lag or size of a domain, or of other domains where
                ``domains`` is ``"same"``, or is damaged; the error names what differs or is wrong.
        """
        with self._changed:
            state, events = restoring.checked(state, self, domains)
            self._schedule.set_state(state)
            self._step = state["step"]
            self._now = _Position(
                np.array(state["drawn"], np.int64),
                np.array(state["carry"], np.int64),
                np.array(state["mass"], np.float64),
                tuple(events),
            )
            self._snapshots = {self._step: self._now}
            self._restored += 1
            self._rows = Rows(self.seed, self.sizes)
            self._publisher = threading.get_ident()
            self._closed = False

    def _after_publication(self):
        self._publisher = threading.get_ident()
        done = self._schedule.next_to_publish
        for step in [step for step in self._snapshots if step < done and step != max(self._snapshots)]:
            del self._snapshots[step]
        self._changed.notify_all()

    def _wait_for_weights(self):
        def ready():
            return self._closed or self._schedule.knows(self._step)

        if not ready() and threading.get_ident() == self._publisher:
            step = self._schedule.next_to_publish
            raise RuntimeError(
                f"step {self._step} has no weights yet: call plan.publish({step}, weights) or plan.keep({step}) after "
                f"training step {step}, since weights are in force lag = {self.lag} steps later."
            )
        if not self._changed.wait_for(ready, self.timeout):
            step = self._schedule.next_to_publish
            raise TimeoutError(
                f"step {self._step} had no weights for {self.timeout:g} s: nobody called plan.publish({step}, weights) "
                f"or plan.keep({step})."
            )
        if self._closed:
            raise StopIteration

    def _draw(self) -> Batch:
        asked, c = self._schedule.in_force(self._step)
        events = list(self._now.events)
        # A plan that is restored with lower limits may have drawn more than those.
        rows_left = np.where(self._limits == NO_LIMIT, NO_LIMIT, np.maximum(self._limits - self._now.drawn, 0))
        q = self._limited(asked, rows_left, events)
        owed = self._now.carry + fixed_point(q, self.batch_size)
        owed, written_off = within_rows_left(owed, rows_left, q)
        if written_off.any():
            names = list(self.sizes)
            lost = {names[d]: float(written_off[d] / UNIT) for d in np.flatnonzero(written_off)}
            events.append({"step": self._step, "event": "written off", "rows": lost})
        counts, carry = carry_counts(owed, np.zeros_like(owed), self.batch_size)

        domain_ids = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
        row_numbers = np.arange(self.batch_size) - np.repeat(np.cumsum(counts) - counts, counts)
        row_numbers += self._now.drawn[domain_ids]
        row_weights, mass = self._share_mass(q if c is None else c, counts, c is None)
        index, num_hosts = self.host
        mine = slice(index, None, num_hosts)
        batch = Batch(
            step=self._step,
            domain_ids=domain_ids[mine],
            rows=self._rows.examples(domain_ids[mine], row_numbers[mine]),
            row_weights=row_weights[domain_ids[mine]].astype(np.float32),
            counts=counts.astype(np.int32),
            weights=q.astype(np.float32),
            asked=asked,
            events=tuple(events),
        )
        self._now = _Position(self._now.drawn + counts, carry, mass)
        self._step += 1
        self._snapshots[self._step] = self._now
        return batch

    def _limited(self, q, rows_left, events):
        """Projects the weights onto the limits of this step; ends the plan where weighted domains lack the rows."""
        if (rows_left == NO_LIMIT).all():
            return q
        has_rows = np.where(rows_left > 0, np.inf, 0.0)
        limits = has_rows
        if self.budget is not None:
            steps_left = self.budget // self.batch_size - self._step
            limits = np.where(rows_left == NO_LIMIT, np.inf, rows_left / (self.batch_size * steps_left))
        projected = project(q, limits)
        if projected is None:
            # Weights that lie on few domains may ask for more than pacing allows; then those domains are spent early.
            projected = project(q, has_rows)
            events.append({"step": self._step, "event": "limits below the weights"})
        # A domain of weight 0 does not fill up a batch.
        short = rows_left[q > 0].sum(dtype=np.float64) < self.batch_size
        if projected is None or short:
            raise StopIteration
        return projected

    def _share_mass(self, c, counts, same_as_sampling):
        """Returns each domain's weight of one row, and the loss weight that goes on waiting for rows."""
        if same_as_sampling and not self._now.mass.any():
            return np.full(counts.size, 1.0 / self.batch_size), self._now.mass
        mass = self._now.mass + c
        return mass / np.maximum(counts, 1), np.where(counts > 0, 0.0, mass)

    def _check_reachable(self):
        reachable = np.where(self._limits == NO_LIMIT, np.inf, self._limits.astype(np.float64)).sum()
        left = f"max_epochs = {self.max_epochs} leaves {reachable:.0f} rows of all domains together"
        if self.budget is not None and reachable < self.budget:
            raise ValueError(f"{left}, and the budget is {self.budget}: raise max_epochs or lower the budget.")
        if reachable < self.batch_size:
            raise ValueError(f"{left}, and a batch is {self.batch_size}: raise max_epochs or lower batch_size.")
