"""Hands out the rows of a mix one by one, for grain's packing."""

from __future__ import annotations

from typing import Any

import grain
import numpy as np
from numpy.typing import NDArray

from mixjax.live.batch import Batch

__all__ = ["Documents", "Iterated", "RowIterator"]


class RowIterator(grain.DatasetIterator):
    """Hands out the rows of the plan's batches one by one, and can start inside of a batch."""

    def __init__(self, batches: grain.DatasetIterator, step: int):
        """Keeps the iterator; nothing is drawn before the first row is asked for."""
        super().__init__()
        self._batches = batches
        self._batch: dict[str, Any] | None = None
        self._at = {"step": step, "row": 0}
        self._drawn: dict[int, Batch] = {}
        self.last_step = step - 1

    def __next__(self) -> dict[str, NDArray]:
        """Returns the next document with the domain and the weight of each of its tokens."""
        batch = next(self._batches) if self._batch is None else self._batch
        step, row = batch["step"], self._at["row"]
        if self._batch is None:
            self._batch, self.last_step = batch, step
            self._drawn[step] = Batch(**{field: batch[field] for field in Batch._fields})
        tokens = batch["value"][row]
        weight = batch["row_weights"][row] / len(tokens)
        # grain's packing keeps states, so each is a new dictionary.
        self._at = {"step": step, "row": row + 1}
        if row + 1 == len(batch["value"]):
            self._batch, self._at = None, {"step": step + 1, "row": 0}
        return {
            "tokens": tokens,
            "domain_ids": np.full(len(tokens), batch["domain_ids"][row], np.int32),
            "token_weights": np.full(len(tokens), weight, np.float32),
        }

    def planned(self, first: int, end: int) -> tuple[Batch, ...]:
        """Returns the plan's batches of some steps, and forgets them."""
        return tuple(self._drawn.pop(step) for step in range(first, end))

    def get_state(self) -> dict[str, int]:
        """Returns the plan's step and the row in its batch that come next."""
        return self._at

    def set_state(self, state: dict[str, int]) -> None:
        """Starts at a row of the batch that the plan draws next."""
        self._batch, self._at = None, dict(state)


class Iterated(grain.IterDataset):
    """Gives grain's packing an iterator that was started before."""

    def __init__(self, iterator: grain.DatasetIterator):
        """Keeps the iterator."""
        super().__init__()
        self._iterator = iterator

    def __iter__(self) -> grain.DatasetIterator:
        """Returns the iterator."""
        return self._iterator


class Documents:
    """Reads documents of different lengths, which cannot be stacked, as an array of arrays."""

    def __init__(self, name: str, dataset: Any, longest: int):
        """Keeps the arguments.

        Args:
            name: the domain's, for errors.
            dataset: whatever has ``len`` and ``[]``.
            longest: tokens of the longest document allowed.
        """
        self._name, self._dataset, self._longest = name, dataset, longest

    def __len__(self) -> int:
        """Counts the documents."""
        return len(self._dataset)

    def __getitem__(self, row: int) -> NDArray:
        """Returns one document."""
        return self.read_rows(np.array([row]))[0]

    def read_rows(self, rows: NDArray[np.integer]) -> NDArray[np.object_]:
        """Returns documents as an object array ``[b]``."""
        documents = np.empty(len(rows), object)
        for place, row in enumerate(rows.tolist()):
            tokens = np.asarray(self._dataset[row])
            if tokens.ndim != 1 or not 1 <= tokens.size <= self._longest or tokens.dtype.kind not in "iu":
                raise ValueError(
                    f"example {row} of domain {self._name!r} must be integers [n] with n from 1 to row_length = "
                    f"{self._longest}, got shape {tokens.shape} of {tokens.dtype}: split or cut longer documents "
                    "before the mix."
                )
            # grain packs all documents into an array of the first one's type.
            documents[place] = tokens.astype(np.int32)
        return documents
