"""Packs the rows of a plan's batches into batches of rows of one length, by grain's packing."""

from __future__ import annotations

from typing import Any

import grain
import numpy as np

from mixjax.live.mixed_rows import Iterated, RowIterator
from mixjax.live.packed_state import Place

__all__ = ["Packer"]

_FIELDS = ("tokens", "domain_ids", "token_weights")


class Packer:
    """Packs documents of a mix into batches, from a place on.

    Attributes:
        step: the number of the next packed batch.
    """

    def __init__(
        self,
        batches: grain.DatasetIterator,
        place: Place,
        *,
        row_length: int,
        batch_size: int,
        open_rows: int,
        padding: int,
        seed: int,
    ):
        """Reads nothing yet.

        Args:
            batches: an iterator over a mix of documents, whose plan is before the step in which ``place`` starts.
            place: where the next packed batch starts.
            row_length: tokens of a packed row.
            batch_size: packed rows of a batch.
            open_rows: packed rows of a group.
            padding: the token that fills up rows.
            seed: seed of the order of the rows in a group.
        """
        self.step = place.step
        self._batch_size, self._padding = batch_size, padding
        self._start = place.start["step"]
        # Packed rows of a batch that an error broke off wait for the next call.
        self._taken: list[dict[str, Any]] = []
        self._rows = RowIterator(batches, self._start)
        self._packing = iter(
            grain.experimental.FirstFitPackIterDataset(
                Iterated(self._rows),
                length_struct=dict.fromkeys(_FIELDS, row_length),
                num_packing_bins=open_rows,
                # In the order in which they are filled, the last rows of a group have the most padding.
                shuffle_bins=True,
                seed=seed,
                meta_features=("domain_ids", "token_weights"),
            )
        )
        self._packing.set_state({"parent": place.start, "next_row": place.next_row, "counter": place.counter})

    def next_batch(self) -> tuple[dict[str, Any], Place]:
        """Returns the next packed batch, and where the one after it starts.

        Raises:
            StopIteration: the documents left do not fill a batch.
            Exception: an error of the mix; the next call goes on where it happened.
        """
        while len(self._taken) < self._batch_size:
            self._taken.append(next(self._packing))
        rows, self._taken = self._taken, []
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        is_padding = batch["tokens_segment_ids"] == 0
        # grain pads with 0, which is a domain.
        batch["domain_ids"][is_padding] = -1
        batch["tokens"][is_padding] = self._padding
        state = self._packing.get_state()
        after = Place(self.step + 1, start=state["parent"], next_row=state["next_row"], counter=state["counter"])
        planned = self._rows.planned(self._start, after.start["step"])
        batch |= {"step": self.step, "plan_step": self._rows.last_step, "planned": planned}
        self.step, self._start = after.step, after.start["step"]
        return batch, after
