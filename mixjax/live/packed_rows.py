"""Reads packed rows from a token file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixjax.live.packing import Packing

__all__ = ["PackedRows"]


class PackedRows:
    """Reads packed rows from a token file: a data set for :func:`mixjax.live.mix`.

    An element is a dictionary, in the words of grain's packing, so that a model takes rows packed before or after the
    mix:

    - ``"tokens"`` ``[T]``, the pieces one after the other, then padding;
    - ``"tokens_segment_ids"`` int32 ``[T]``, 1 for the first piece, 2 for the second, ...; 0 for padding. Attention
      stays within a segment, and a loss within the segments that are not 0;
    - ``"tokens_positions"`` int32 ``[T]``, 0, 1, ... in each piece; 0 for padding.

    Args:
        tokens: ``[n]``, the token file, usually ``np.memmap(path, np.uint16, "r")``.
        packing: from :func:`pack`, made for this file.
        padding: the token that fills up rows.

    Raises:
        ValueError: tokens that are not one flat array, or fewer than the packing was made for.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import PackedRows, pack
        >>> rows = PackedRows(np.arange(10, 17), pack([2, 3, 2], row_length=5))
        >>> for name, values in rows[0].items():
        ...     print(name, values)
        tokens [10 11 12 13 14]
        tokens_segment_ids [1 1 2 2 2]
        tokens_positions [0 1 0 1 2]
    """

    def __init__(self, tokens: NDArray, packing: Packing, padding: int = 0):
        """Keeps the arguments; no token is read before a row is asked for."""
        if not isinstance(tokens, np.ndarray) or tokens.ndim != 1:
            raise ValueError(f"tokens must be a flat array [n], got {getattr(tokens, 'shape', type(tokens).__name__)}.")
        needed = int((packing.piece_starts + packing.piece_lengths).max())
        if tokens.size < needed:
            raise ValueError(f"the packing was made for {needed} tokens or more, got {tokens.size} of them.")
        # A plain view, since slices of np.memmap cost several times as much.
        self._tokens, self._packing, self._padding = tokens.view(np.ndarray), packing, padding

    def __len__(self) -> int:
        """Counts the rows."""
        return self._packing.num_rows

    def __getitem__(self, row: int) -> dict[str, NDArray]:
        """Returns one row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row must be from 0 to {len(self) - 1}, got {row}.")
        return {name: values[0] for name, values in self.read_rows(np.array([row])).items()}

    def read_rows(self, rows: NDArray[np.integer]) -> dict[str, NDArray]:
        """Returns rows stacked, ``[B, T]``, at a fraction of the cost of reading them one by one.

        Args:
            rows: ``[B]``, from 0 to the number of rows - 1.
        """
        row_length, row_starts, piece_starts, piece_lengths = self._packing
        first, counts = row_starts[rows], row_starts[rows + 1] - row_starts[rows]
        # One piece more a row: its padding, maybe empty. Then the pieces tile the batch.
        number = np.arange((counts + 1).sum()) - np.repeat(np.cumsum(counts + 1) - counts - 1, counts + 1)
        is_padding = number == np.repeat(counts, counts + 1)
        pieces = np.where(is_padding, 0, np.repeat(first, counts + 1) + number)
        lengths = np.where(is_padding, 0, piece_lengths[pieces])
        lengths[is_padding] = row_length - np.add.reduceat(lengths, np.flatnonzero(number == 0))
        ends = np.cumsum(lengths)
        segments = np.repeat(np.where(is_padding, 0, number + 1).astype(np.int32), lengths)
        positions = np.arange(segments.size, dtype=np.int32) - np.repeat((ends - lengths).astype(np.int32), lengths)
        positions[segments == 0] = 0
        tokens = np.full(segments.size, self._padding, self._tokens.dtype)
        spans = np.stack([ends - lengths, ends, piece_starts[pieces]], axis=1)[~is_padding]
        for start, end, source in spans.tolist():
            tokens[start:end] = self._tokens[source : source + end - start]
        shape = (len(rows), row_length)
        return {
            "tokens": tokens.reshape(shape),
            "tokens_segment_ids": segments.reshape(shape),
            "tokens_positions": positions.reshape(shape),
        }
