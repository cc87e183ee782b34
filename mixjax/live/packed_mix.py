"""Packs the rows of a plan after they were mixed, by grain's packing."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import grain
from numpy.typing import ArrayLike

from mixjax.live.arguments import check_integer
from mixjax.live.datasets import as_named
from mixjax.live.mixed import mix
from mixjax.live.mixed_rows import Documents
from mixjax.live.packed_state import VERSION, Place, place_of
from mixjax.live.packer import Packer
from mixjax.live.plan import Plan

__all__ = ["PackedMix"]


class PackedMix(grain.IterDataset):
    r"""Packs documents of all domains together into batches ``[batch_size, T]``.

    Rows of the plan are documents of different lengths here, and a packed row may hold documents of several domains.
    :func:`mixjax.live.pack` before the mix keeps more promises and pads less; take this where documents cannot be
    packed beforehand, because they are made, filtered or tokenised while they are read.

    grain's first-fit packing fills a group of ``open_rows`` rows until a document fits into none. Then the group is
    handed out in batches. An element is a dictionary of:

    - ``"tokens"``, ``"tokens_segment_ids"``, ``"tokens_positions"``, int32 ``[batch_size, T]``, as in
      :class:`mixjax.live.PackedRows`;
    - ``"domain_ids"`` int32 ``[batch_size, T]``, the domain of each token; -1 for padding;
    - ``"token_weights"`` float32 ``[batch_size, T]``, the factor of each token's loss: the plan's ``row_weights`` over
      the tokens of the document, so that the tokens of a document share its weight; 0 for padding;
    - ``"step"``, the number of the packed batch, from 0 on;
    - ``"plan_step"``, the last step of the plan that had to be drawn for it;
    - ``"planned"``, the plan's batches (:class:`mixjax.live.Batch`) of which this batch handed out the last rows, for
      the ledger.

    *Promises.* What the plan promises holds for rows planned, in order and over the groups, and not for each packed
    batch: its shares of domains, and the sum of its ``token_weights``, follow the plan's on average. That sum is how
    many of the plan's steps the batch holds; over all batches it is the number of the plan's steps. No row is lost or
    repeated, also after a restore.

    *Feedback.* Publish here, not to the plan. A step of the plan is published when its last row was handed out, with
    the weights of the last batch of its group, so weights come into force a group later than the plan's ``lag`` alone
    says. All steps that a group needs are drawn before its first batch is trained: ``lag`` has to be larger than the
    steps of a group, about ``open_rows * T / (mean tokens of a document * plan.batch_size) + 1``.
    :class:`mixjax.live.Feedback` takes a ``PackedMix`` in place of a plan, where ``lag`` covers its delay too.

    *Hosts.* Where a row ends up depends on all rows before it. So every host packs all rows of the plan, which
    therefore has ``host=(0, 1)``, and takes its part of each batch, ``batch["tokens"][index::hosts]``.

    Args:
        datasets: one data set a domain, with ``len`` and ``[]``, whose examples are integer arrays ``[n]`` of tokens,
            ``1 <= n <= T``, such as a ``grain.MapDataset``.
        plan: says which documents come next. With ``lengths`` its shares are shares of tokens.
        row_length: ``T``, tokens of a packed row, padding included.
        batch_size: packed rows of a batch.
        open_rows: packed rows of a group, at least 1. For log-normal lengths (sigma 1) of 600 tokens on average in rows
            of 2,048 padding is 21 % with 1, 3 % with 32 and 1.5 % with 128.
        workers: number of reader processes, see :func:`mixjax.live.mix`. Packing itself takes about 0.2 ms a document,
            in this process.
        prefetch: as in :func:`mixjax.live.mix`, in batches of the plan.
        padding: the token that fills up rows.

    Raises:
        ValueError: data sets that do not fit the plan, a plan of one of several hosts, or a number out of range.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import PackedMix, Plan
        >>> documents = {"short": [np.full(2, 7)] * 50, "long": [np.full(6, 8)] * 50}
        >>> plan = Plan({"short": 50, "long": 50}, batch_size=4, weights=[0.5, 0.5], lag=8)
        >>> packed = PackedMix(documents, plan, row_length=8, batch_size=2, open_rows=4)
        >>> for batch in packed:
        ...     packed.publish(batch["step"], [0.5, 0.5])
        ...     if batch["step"] == 3:
        ...         break
        >>> batch["domain_ids"].shape, batch["plan_step"], len(batch["planned"])
        ((2, 8), 3, 2)
    """

    def __init__(
        self,
        datasets: Mapping[str, Any] | Sequence[Any],
        plan: Plan,
        row_length: int,
        batch_size: int,
        open_rows: int = 64,
        workers: int = 0,
        prefetch: int | None = None,
        padding: int = 0,
    ):
        """Keeps the arguments; nothing is read before the first batch is asked for."""
        super().__init__()
        self._settings = {"row_length": row_length, "batch_size": batch_size, "open_rows": open_rows}
        for name, value in self._settings.items():
            check_integer(name, value, 1, 2**31 - 1)
        if plan.host[1] != 1:
            raise ValueError(
                f"packing after the mix needs all rows on every host: make the plan with host=(0, 1), got {plan.host}, "
                "and take this host's part of each packed batch."
            )
        named = {name: Documents(name, dataset, row_length) for name, dataset in as_named(datasets).items()}
        self._mixed = mix(named, plan, workers, prefetch)
        self._plan, self._padding = plan, padding
        self._handed_out: collections.deque[Place] = collections.deque()
        self._place = Place(step=0, start={"step": plan.step, "row": 0}, next_row=0, counter=0)
        self._iterator: weakref.ref[_PackedIterator] | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Returns the number of documents of each domain, as the plan has them."""
        return self._plan.sizes

    @property
    def lag(self) -> int:
        """Returns the plan's lag, in steps of the plan."""
        return self._plan.lag

    @property
    def num_restored(self) -> int:
        """Counts how often the plan was set back, as :attr:`mixjax.live.Plan.num_restored` does."""
        return self._plan.num_restored

    @property
    def next_to_publish(self) -> int:
        """Returns the number of the packed batch that is published next."""
        return self._place.step

    def __iter__(self) -> _PackedIterator:
        """Starts reading after the last batch that was published.

        Raises:
            RuntimeError: an iterator over the plan has not been closed.
        """
        before = None if self._iterator is None else self._iterator()
        # Batches that an earlier iterator handed out, and nobody published, come again, and so does their group.
        if (before is None or before._batches.is_closed) and self._has_read_ahead():
            self.set_state(self.get_state())
        iterator = _PackedIterator(self, iter(self._mixed))
        self._iterator = weakref.ref(iterator)
        return iterator

    def _has_read_ahead(self) -> bool:
        return bool(self._handed_out) or self._plan.step != self._place.start["step"]

    def publish(self, step: int, weights: ArrayLike | None, loss_weights: ArrayLike | None = None) -> None:
        """Sets the weights, and notes that a packed batch was trained.

        Only the last batch of a group moves the plan; the weights of the others are not looked at.

        Args:
            step: ``batch["step"]`` of the batch that was trained last; every batch is published, or kept, once and in
                order.
            weights: as in :meth:`mixjax.live.Plan.publish`; None leaves the weights as they are.
            loss_weights: as in :meth:`mixjax.live.Plan.publish`.

        Raises:
            ValueError: another batch than the next one, or weights that are not non-negative ``[D]``.
        """
        if not self._handed_out or step != self._place.step:
            waiting = f"the next is batch {self._place.step}" if self._handed_out else "none was handed out since"
            raise ValueError(f"packed batches are published once and in order: {waiting}, got batch {step}.")
        after = self._handed_out[0]
        for planned in range(self._plan.next_to_publish, after.start["step"]):
            if weights is None:
                self._plan.keep(planned)
            else:
                self._plan.publish(planned, weights, loss_weights)
        self._place = self._handed_out.popleft()

    def keep(self, step: int) -> None:
        """Leaves the weights as they are, and notes that a packed batch was trained.

        Args:
            step: ``batch["step"]`` of the batch that was trained last, as :meth:`publish` takes it.

        Raises:
            ValueError: another batch than the next one.
        """
        self.publish(step, None)

    def get_state(self) -> dict[str, Any]:
        """Returns where the batch after the last published one starts, however many batches were read ahead.

        Returns:
            A dictionary for JSON, with the plan's state in it. It is the same on every host.
        """
        return {"version": VERSION, **self._settings, **self._place._asdict(), "plan": self._plan.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts the plan and the packing back to where :meth:`get_state` was called, before the next iterator starts.

        The documents of the group that was being handed out are read and packed again, and the batches that were
        published are left out.

        Args:
            state: the dictionary, possibly from JSON.

        Raises:
            ValueError: the state is of other settings, of another plan, or damaged.
        """
        place = place_of(state, self._settings)
        self._plan.set_state(state["plan"])
        self._handed_out.clear()
        self._place = place

    def mp_prefetch(self, *arguments: Any, **named: Any):
        """Refuses to be read by other processes, as the mix does.

        Raises:
            TypeError: always.
        """
        return self._mixed.mp_prefetch()

    def __reduce__(self):
        """Refuses to be pickled, as the mix does."""
        return self._mixed.__reduce__()


class _PackedIterator(grain.DatasetIterator):
    """Hands out batches of packed rows."""

    def __init__(self, packed: PackedMix, batches: Any):
        super().__init__(batches)
        self._packed, self._batches = packed, batches
        self._start()

    def _start(self):
        """Goes to the place where the plan and the packing were set to."""
        packed, place = self._packed, self._packed._place
        if packed._plan.step != place.start["step"]:
            raise RuntimeError(
                f"the plan was set to step {packed._plan.step}, and the packed rows start in step "
                f"{place.start['step']}: set the state of the packed mix, and not of its plan."
            )
        self._packer = Packer(self._batches, place, **packed._settings, padding=packed._padding, seed=packed._plan.seed)
        self._restored = packed._plan.num_restored

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        packed = self._packed
        if self._restored != packed._plan.num_restored:
            self._start()
        try:
            batch, place = self._packer.next_batch()
        except (RuntimeError, TimeoutError) as error:
            if "no weights" not in str(error):
                raise
            raise type(error)(self._advice()) from error
        packed._handed_out.append(place)
        return batch

    def _advice(self) -> str:
        packed = self._packed
        if packed._handed_out:
            next_one = packed.next_to_publish
            return (
                f"batch {self._packer.step} needs weights: call publish({next_one}, weights) or keep({next_one}) of "
                f"the packed mix after training batch {next_one}."
            )
        open_rows, lag = packed._settings["open_rows"], packed.lag
        return (
            f"a group of open_rows = {open_rows} packed rows takes more than {lag} steps of the plan, and weights are "
            f"only known for lag = {lag} steps: raise the plan's lag, or lower open_rows."
        )

    def get_state(self) -> dict[str, Any]:
        return self._packed.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._packed.set_state(state)

    def close(self) -> None:
        self._batches.close()
        super().close()
