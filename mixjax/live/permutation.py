"""Shuffles a domain of any size by a keyed permutation, one row at a time and without a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["permuted"]

# With fewer rounds, domains of a few rows would not be shuffled evenly.
_ROUNDS = 12

# Multiples of 2^64 over the golden ratio, one a round.
_CONSTANTS = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def permuted(seed: int, key: int, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Returns which example is row ``k`` of a domain that is read in a new order in every epoch.

    Row ``k`` is example ``permutation(seed, key, k // size)[k mod size]``. The permutation is a Feistel network on
    the bits of ``size - 1`` with cycle walking, so one row costs the same wherever it stands, and no table is kept.
    Each epoch goes exactly once through the domain. Not every one of the ``size!`` orders occurs.

    Args:
        seed: a non-negative integer below 2^64.
        key: a non-negative integer below 2^64 that gives each domain orders of its own.
        rows: int64 ``[k]``, row numbers from 0 on.
        size: number of examples, from 1 to 2^40.

    Returns:
        int64 ``[k]``, examples in ``[0, size)``.

    Example:
        >>> import numpy as np
        >>> from mixjax.live.permutation import permuted
        >>> examples = permuted(0, 0, np.arange(10), 5)
        >>> sorted(examples[:5].tolist()), sorted(examples[5:].tolist())
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])

    References:
        Black and Rogaway, "Ciphers with arbitrary finite domains", 2002. The mixing function is SplitMix64's (Steele,
        Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    rows = np.asarray(rows, np.int64)
    if size == 1:
        return np.zeros_like(rows)
    epochs, places = np.divmod(rows, size)
    tweaks = _mix(_mix(_mix(np.array([seed], np.uint64)) ^ np.uint64(key)) + epochs.astype(np.uint64))
    network = _Network(bits=(size - 1).bit_length())
    found = network.encrypt(places.astype(np.uint64), tweaks)
    # Cycle walking: what lands outside the domain is encrypted again until it is inside. The network's range is less
    # than twice the size, so that takes less than two turns on average.
    outside = np.flatnonzero(found >= np.uint64(size))
    while outside.size:
        found[outside] = network.encrypt(found[outside], tweaks[outside])
        outside = outside[found[outside] >= np.uint64(size)]
    return found.astype(np.int64)


class _Network:
    """Permutes the numbers of some bits: two halves, of which each is changed in turn by a hash of the other."""

    def __init__(self, bits: int):
        self.low_bits = np.uint64((bits + 1) // 2)
        self.masks = (np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << (bits // 2)) - 1))

    def encrypt(self, numbers: NDArray[np.uint64], tweaks: NDArray[np.uint64]) -> NDArray[np.uint64]:
        low, high = numbers & self.masks[0], numbers >> self.low_bits
        for turn in range(0, _ROUNDS, 2):
            low = low ^ (_mix(high + tweaks + _CONSTANTS[turn]) & self.masks[0])
            high = high ^ (_mix(low + tweaks + _CONSTANTS[turn + 1]) & self.masks[1])
        return (high << self.low_bits) | low


def _mix(x):
    """Mixes 64 bits, bijectively."""
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])
