"""Finds long runs of bytes that two texts share, and leaves the paragraphs that hold them out of one.

Every run of 100 bytes is found, in linear time: a text's windows of 81 bytes at every 20th byte are known by 64-bit
hashes, and each run of 100 bytes holds one of these windows whole. The hash of a window x_0 ... x_80 is the polynomial
``sum_j table[x_j] b**j`` modulo 2**64, which differences of a cumulative sum give for all windows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["RUN", "WINDOW", "Runs", "shared_windows"]

RUN = 100
"""The length in bytes of the shortest run that is always found."""

_STRIDE = 20
# The smallest multiple of the stride after a run's start is at most stride - 1 bytes later.
WINDOW = RUN - _STRIDE + 1
"""The length in bytes of the pieces that are compared."""
_CHUNK = _STRIDE * 50_000
_TABLE = np.random.default_rng(0).integers(1, 2**63, 256, dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15
_POWERS = np.multiply.accumulate(np.full(_CHUNK + WINDOW, _BASE, np.uint64))
_INVERSES = np.multiply.accumulate(np.full(_CHUNK + WINDOW, pow(_BASE, -1, 2**64), np.uint64))


class Runs:
    """Knows the runs of some texts, so that :func:`shared_windows` can look for them in another."""

    def __init__(self, texts: Iterable[np.ndarray]) -> None:
        """Takes the texts, uint8 arrays [n]."""
        # A chunk begins at a multiple of the stride. Without the copy, the slice would keep the whole chunk in memory.
        hashes = [hashes[::_STRIDE].copy() for text in texts for _, hashes in _by_chunk(text)]
        self._hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *hashes]))
        # Most windows are in no text: a table of leading bits answers for them without a search.
        self._shift = np.uint64(64 - max(10, (8 * len(self._hashes)).bit_length()))
        self._leading = np.zeros(1 << (64 - int(self._shift)), bool)
        self._leading[self._hashes >> self._shift] = True

    def known(self, hashes: np.ndarray) -> np.ndarray:
        """Returns which of the hashes of windows [n] are known, as booleans [n]."""
        known = self._leading[hashes >> self._shift]
        likely = np.flatnonzero(known)
        # Neighbours in a sorted list are found where the memory was just read.
        likely = likely[np.argsort(hashes[likely])]
        at = np.searchsorted(self._hashes, hashes[likely])
        known[likely] = self._hashes[np.minimum(at, len(self._hashes) - 1)] == hashes[likely]
        return known


def shared_windows(text: np.ndarray, *others: Runs) -> np.ndarray:
    """Finds what a text shares with others.

    Args:
        text: uint8 [n].
        others: the runs of the other texts.

    Returns:
        The places in ``text``, in ascending order, at which windows of :data:`WINDOW` bytes begin that others have.
        Each run of :data:`RUN` bytes that one of the others has holds such a window. A shorter run may.
    """
    found = [start + np.flatnonzero(runs.known(hashes)) for start, hashes in _by_chunk(text) for runs in others]
    return np.unique(np.concatenate([np.zeros(0, int), *found]))


def _by_chunk(text: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields where each chunk begins, and the hashes of the windows that begin in it, uint64."""
    for start in range(0, max(len(text) - WINDOW + 1, 0), _CHUNK):
        values = _TABLE[text[start : start + _CHUNK + WINDOW - 1]]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * _POWERS[: len(values)])])
        hashes = (sums[WINDOW:] - sums[:-WINDOW]) * _INVERSES[: len(values) - WINDOW + 1]
        # The leading bits of a product depend on all bits of its factors.
        hashes ^= hashes >> np.uint64(32)
        yield start, hashes * np.uint64(_BASE)
