"""Joins the files of a domain into one data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixjax.live.datasets import as_named, check_alike, map_leaves, sizes_of
from mixjax.live.reading import read_batch

__all__ = ["Shards"]


class Shards:
    """Joins data sets of one domain, such as its token files, into one: its examples are theirs in order.

    ``grain.MapDataset.concatenate`` does so for grain's data sets. This one takes all that :func:`mixjax.live.mix`
    takes, and reads arrays, memory maps and :class:`mixjax.live.PackedRows` without a call per row of grain's.

    Args:
        datasets: the data sets, at least one, whose examples are alike.

    Raises:
        ValueError: there is no data set, or the rows of two that are arrays have other types or shapes.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import Shards, windows
        >>> files = [np.arange(10), np.arange(100, 107)]
        >>> rows = Shards([windows(tokens, 3) for tokens in files])
        >>> len(rows), rows[3].tolist(), rows.read_rows(np.array([4, 0])).tolist()
        (5, [100, 101, 102], [[103, 104, 105], [0, 1, 2]])
    """

    def __init__(self, datasets: Sequence[Any]):
        """Keeps the data sets; no example is read."""
        self._datasets = list(datasets)
        if not self._datasets:
            raise ValueError("datasets must have at least one data set, got none.")
        named = {f"shard {name}": dataset for name, dataset in as_named(self._datasets).items()}
        check_alike(named)
        self._ends = np.cumsum(list(sizes_of(named).values()))

    def __len__(self) -> int:
        """Counts the examples of all data sets."""
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> Any:
        """Returns one example."""
        if not 0 <= row < len(self):
            raise IndexError(f"row must be from 0 to {len(self) - 1}, got {row}.")
        return map_leaves(lambda stacked: stacked[0], self.read_rows(np.array([row])))

    def read_rows(self, rows: NDArray[np.int64]) -> Any:
        """Returns examples stacked.

        Args:
            rows: ``[B]``, from 0 to the number of examples - 1.
        """
        shards = np.searchsorted(self._ends, rows, "right").astype(np.int32)
        starts = np.append(0, self._ends[:-1])
        return read_batch(self._datasets, shards, rows - starts[shards])
