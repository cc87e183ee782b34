"""Looks up which examples the next rows are, a block of rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mixjax.live.permutation import permuted

__all__ = ["Rows"]

# Shuffling a block at once costs a tenth of shuffling its rows one batch at a time, and less in longer blocks. Many
# domains have short ones, so that all of them together take 4 MB, or 4 kB each.
_SHORTEST, _LONGEST, _TOGETHER = 512, 4096, 2**19


class Rows:
    """Looks up which examples the next rows are.

    The block of shuffled rows that each domain stands in is kept. It is a cache: what it holds follows from the seed.
    """

    def __init__(self, seed: int, sizes: Mapping[str, int]):
        """Starts with no block shuffled."""
        self._seed, self._sizes = seed, list(sizes.values())
        # Keys follow from names, so that a domain keeps its order of examples when others come and go.
        self._keys = [_key_of(name) for name in sizes]
        self._block = np.full(len(sizes), -1, np.int64)
        self._length = min(_LONGEST, max(_SHORTEST, _TOGETHER // len(sizes)))
        # Domains of equal weight would all need their next block in the same step, so each has other bounds.
        self._offsets = np.array([key % self._length for key in self._keys], np.int64)
        # Memory that is not written to is not taken, so domains that are never drawn cost none.
        self._shuffled = np.empty((len(sizes), self._length), np.int64)

    def examples(self, domain_ids: NDArray[np.int32], row_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the examples of rows, given by their domains and their numbers since the start of the run."""
        blocks, places = np.divmod(row_numbers + self._offsets[domain_ids], self._length)
        # The rows of the blocks at hand are read before any block is replaced, so a batch that ends in a new block
        # shuffles that one only.
        examples = self._shuffled[domain_ids, places]
        waiting = np.flatnonzero(self._block[domain_ids] != blocks)
        while waiting.size:
            ids = domain_ids[waiting]
            for domain, block in self._next_blocks(ids, blocks[waiting]):
                self._fill(domain, block)
            ready = self._block[ids] == blocks[waiting]
            found = waiting[ready]
            examples[found] = self._shuffled[domain_ids[found], places[found]]
            waiting = waiting[~ready]
        return examples

    def _next_blocks(self, domain_ids, blocks):
        """Lists each domain once, with the first block that it waits for."""
        domains, first = np.unique(domain_ids, return_index=True)
        return zip(domains.tolist(), blocks[first].tolist(), strict=True)

    def _fill(self, domain, block):
        rows = np.arange(block * self._length, (block + 1) * self._length) - self._offsets[domain]
        # The first block starts before the first row; what stands there is never asked for.
        rows = np.maximum(rows, 0)
        self._shuffled[domain] = permuted(self._seed, self._keys[domain], rows, self._sizes[domain])
        self._block[domain] = block


def _key_of(name):
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
