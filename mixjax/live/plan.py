"""Says which rows the next batches hold, from a small state that every host computes alike."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live import restoring
from mixjax.live.arguments import check_host, check_integer, check_timeout, named_sizes
from mixjax.live.batch import Batch
from mixjax.live.drawing import Drawing
from mixjax.live.pacing import Ended
from mixjax.live.position import Position
from mixjax.live.row_lengths import named_lengths
from mixjax.live.weights import Schedule

__all__ = ["Plan"]

_SECONDS_BETWEEN_LOOKS = 0.2


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
    because the counts are. Otherwise each domain's ``c`` is added up until the domain has rows, which share it. As long
    as ``q_d`` is 0 the objective lacks the domain, and its first row afterwards carries all that has been added up.
    Where that comes to more than the weight of a whole batch, an event names the domain: give it a small ``q_d``, as
    :func:`mixjax.rules.floor` does, or no ``c_d``.

    *Tokens.* With ``lengths`` the sampling weights are shares of tokens. A batch still has ``B`` rows, and a domain's
    tokens stay within one row above, and ``H_{D-1}`` rows below, the tokens it is due, in units of the longest row, see
    :func:`mixjax.live.tokens_carried.carry_tokens`. Every host needs the lengths of all domains. ``row_weights`` are
    then factors of each row's mean loss over its tokens. Where ``c`` is ``q``, a row weighs its tokens over the
    batch's, which makes the plain mean over all tokens. Otherwise the rows of a domain share its ``c`` in proportion to
    their tokens.

    *Limits.* ``max_epochs`` limits how often an example is drawn. With a ``budget`` the plan paces: no domain gets more
    in a step than ``u_d``, its rows left over the rows of the run left, so that it lasts to the end. The weights in
    force are the projection ``min(u, lambda q)``. Rows that a domain is owed and does not have are written off. With
    ``lengths`` all of that is in tokens. The plan ends where the budget does not hold another batch, or the domains of
    positive weight have less than a batch left; :attr:`ending` says which.

    *Events.* Batches say what happened beside drawing, and the ledger writes it down: a domain ``begins epoch 2`` (once
    a domain), or has its ``limit reached``; rows or tokens were ``written off``; the weights ask for more than pacing
    leaves (``limits below the weights``, once until they do not); ``loss weight waits for rows`` (once a domain).
    ``sampling weights near one domain``, or ``loss weights near one domain``, says that weights that began on three
    domains or more have fallen below an effective number of two, see :func:`mixjax.rules.effective_domains`. It comes
    once until they recover, and the first host warns too (a RuntimeWarning).

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
        budget: number of rows of the whole run, or of tokens with ``lengths``; the plan ends with the last batch that
            the budget holds in full. None goes on without end.
        lengths: tokens of each example, from 1 to 2^24: an array of integers for each domain, possibly a memory map, in
            a sequence or by name. None counts rows.
        timeout: seconds for which a thread that does not publish waits for weights.

    Raises:
        ValueError: an argument out of range, or limits that leave less than the budget; the error names it.

    Example:
        >>> import mixjax, numpy as np
        >>> plan = mixjax.live.Plan({"web": 1000, "code": 50}, batch_size=4, weights=[0.75, 0.25], lag=1)
        >>> batch = next(plan)
        >>> batch.counts.tolist(), batch.domain_ids.tolist()
        ([3, 1], [0, 0, 0, 1])
        >>> plan.publish(batch.step, [0.5, 0.5])
        >>> next(plan).counts.tolist()
        [2, 2]

        Half of the tokens, from rows of 100 and of 300 tokens:

        >>> lengths = {"web": [100] * 1000, "code": [300] * 50}
        >>> plan = mixjax.live.Plan({"web": 1000, "code": 50}, 4, [0.5, 0.5], lengths=lengths)
        >>> batch = next(plan)
        >>> batch.counts.tolist(), batch.tokens.tolist()
        ([3, 1], [300, 300])
        >>> batch.row_weights.tolist() == [np.float32(each / 600) for each in batch.lengths]
        True
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
        lengths: Sequence[ArrayLike] | Mapping[str, ArrayLike] | None = None,
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
        if budget is not None:
            check_integer("budget", budget, batch_size, 2**62)
        self.max_epochs, self.budget = max_epochs, None if budget is None else int(budget)
        checked = None if lengths is None else named_lengths(lengths, self.sizes)
        self._drawing = Drawing(
            self.sizes, self.batch_size, self.seed, host, max_epochs=max_epochs, budget=self.budget, lengths=checked
        )

        self._step = 0
        self._now = Position.start(num_domains, self._drawing.spread.at_start(*self._schedule.first))
        self._snapshots = {0: self._now}
        self._ending: dict[str, Any] | None = None
        self._changed = threading.Condition()
        self._publisher = threading.get_ident()
        self._closed = False
        self._restored = 0
        # The last step whose warnings were given: a step that is taken back and drawn again does not warn again.
        self._warned = -1

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

    @property
    def token_totals(self) -> list[int] | None:
        """Returns the number of tokens of all examples of each domain; None where the plan counts rows."""
        return self._drawing.totals

    @property
    def ending(self) -> dict[str, Any] | None:
        """Returns why there is no further batch, as the ledger's last event; None where ``next`` has not ended yet.

        Its ``"reason"`` is ``"budget reached"`` or ``"rows spent"``. Then ``"rows_left"`` names the domains of positive
        weight and what they have left, which together is less than a batch.
        """
        with self._changed:
            return self._ending

    def __iter__(self) -> Plan:
        """Returns the plan, which is its own iterator."""
        return self

    def __next__(self) -> Batch:
        """Draws the batch of the next step."""
        return self.draw()

    def draw(self, while_waiting: Callable[[int], Literal["unwanted", "stuck"] | None] | None = None) -> Batch:
        """Draws the batch of the next step, as ``next`` does, and asks now and then whether to go on waiting for it.

        Args:
            while_waiting: called every fifth of a second while the step has no weights, with the identity of the thread
                that publishes them; ``"unwanted"`` ends the wait as the end of the data does, ``"stuck"`` as in the
                thread that publishes.
        """
        with self._changed:
            self._wait_for_weights(while_waiting)
            if self._closed:
                raise StopIteration
            try:
                batch, after = self._drawing.draw(self._step, self._now, *self._schedule.in_force(self._step))
            except Ended as ended:
                self._ending = {"step": self._step, "event": "ended", **ended.why}
                raise StopIteration from None
            self._step, self._now = self._step + 1, after
            self._snapshots[self._step] = after
            self._forget()
        self._warn(batch)
        return batch

    def is_known(self) -> bool:
        """Tells whether ``next`` would return, or end the plan, without waiting for weights."""
        with self._changed:
            return self._is_ready()

    def publish(self, step: int, weights: ArrayLike, loss_weights: ArrayLike | None = None) -> None:
        """Sets the weights that are in force from step ``step + lag`` on.

        Args:
            step: the step that was trained last. Every step is published, or kept, once and in order. Weights that are
                known beforehand may be published before their step is drawn.
            weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
            loss_weights: loss weights ``c``, ``[D]``, normalised here; None means ``q``.

        Raises:
            ValueError: another step than the next one, or weights that are not non-negative ``[D]``.
        """
        with self._changed:
            self._schedule.publish(step, weights, loss_weights)
            self._after_publication()

    def keep(self, step: int) -> None:
        """Leaves the weights as they are; takes the place of :meth:`publish` after a step that brought nothing new.

        Args:
            step: the step that was trained last, as :meth:`publish` takes it.

        Raises:
            ValueError: another step than the next one.
        """
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
                self._step, self._now, self._ending = batch.step, self._snapshots[batch.step], None
                self._snapshots = {step: at for step, at in self._snapshots.items() if step <= batch.step}

    def close(self) -> None:
        """Ends the plan: threads that wait for weights stop as at the end of the data."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def get_state(self) -> dict[str, Any]:
        """Returns the plan before the step after the last published one, however many batches were read ahead.

        Where that step was published before it was drawn, it is the plan before the next step to be drawn.

        Returns:
            A dictionary for JSON: numbers, strings, lists. It is the same on every host.
        """
        with self._changed:
            step = self._first_needed()
            return {
                "version": restoring.VERSION,
                "seed": self.seed,
                "batch_size": self.batch_size,
                "sizes": dict(self.sizes),
                "token_totals": self.token_totals,
                "step": step,
                **self._snapshots[step].get_state(self.token_totals is not None),
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
            ValueError: the state is of another seed, batch size, lag, size or number of tokens of a domain, or of other
                domains where ``domains`` is ``"same"``, or counts tokens where this plan counts rows or the other way
                round, or is damaged; the error names what differs or is wrong.
        """
        with self._changed:
            state = restoring.checked(state, self, domains)
            self._schedule.set_state(state)
            self._step = state["step"]
            self._now, self._ending = Position.from_state(state), None
            self._snapshots = {self._step: self._now}
            self._restored += 1
            self._publisher = threading.get_ident()
            self._closed = False
            self._warned = self._step - 1

    def _after_publication(self):
        self._publisher = threading.get_ident()
        self._forget()
        self._changed.notify_all()

    def _warn(self, batch):
        """Warns of the events that few would look for in the ledger, on one host, since all have the same."""
        if self.host[0] or batch.step <= self._warned:
            return
        self._warned = batch.step
        for event in batch.events:
            if event["event"].endswith("weights near one domain"):
                (name,) = event["domains"]
                warnings.warn(
                    f"step {batch.step}: the {event['event'].partition(' ')[0]} weights come near one domain: "
                    f"{name!r} has {event['share']:.2f}, and the effective number of domains is "
                    f"{event['effective_domains']:.2f} of {len(self.sizes)}. Smaller steps of the rule, more rows "
                    "behind its signals or mixjax.rules.floor keep the others in the mix.",
                    RuntimeWarning,
                    # The line that called next.
                    stacklevel=4,
                )

    def _first_needed(self):
        """Returns the step that a state saved now starts with."""
        # A loop may publish weights that it knows beforehand, ahead of the steps it has drawn.
        return min(self._schedule.next_to_publish, self._step)

    def _forget(self):
        first = self._first_needed()
        self._schedule.forget_before(first)
        self._snapshots = {step: at for step, at in self._snapshots.items() if step >= first}

    def _is_ready(self):
        over = self._drawing.pacing.is_over(self._step, self._now)
        return self._closed or over or self._schedule.knows(self._step)

    def _wait_for_weights(self, while_waiting):
        end = time.monotonic() + self.timeout
        found = "stuck" if threading.get_ident() == self._publisher else None
        while not self._is_ready():
            left = end - time.monotonic()
            if found == "unwanted":
                raise StopIteration
            if found == "stuck" or left <= 0:
                raise self._lack_of_weights(found)
            if not self._changed.wait_for(self._is_ready, min(left, _SECONDS_BETWEEN_LOOKS)) and while_waiting:
                found = while_waiting(self._publisher)

    def _lack_of_weights(self, found) -> Exception:
        step = self._schedule.next_to_publish
        calls = f"plan.publish({step}, weights) or plan.keep({step})"
        if found == "stuck":
            return RuntimeError(
                f"step {self._step} has no weights yet: call {calls} after training step {step}, since weights are in "
                f"force lag = {self.lag} steps later."
            )
        return TimeoutError(f"step {self._step} had no weights for {self.timeout:g} s: nobody called {calls}.")
