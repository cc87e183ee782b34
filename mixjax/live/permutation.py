"""Shuffles a domain of any size by a keyed permutation, one row at a time and without a table that is kept."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["permuted"]

# A network shuffles few examples unevenly, unless it has many more rounds. Sorting those is cheaper anyway.
_FEW = 512

# With six rounds, the distances between the examples of neighbouring rows are visibly uneven in the smallest domains.
_ROUNDS = 8

# Multiples of 2^64 over the golden ratio.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CONSTANTS = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def permuted(seed: int, key: int, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Returns which example is row ``k`` of a domain that is read in a new order in every epoch.

    Row ``k`` is example ``permutation(seed, key, k // size)[k mod size]``. Each epoch goes exactly once through the
    domain. Up to 512 examples are sorted by a hash. More are permuted by a Feistel network on the cells of a rectangle
    with cycle walking, so one row costs the same wherever it stands; not every one of their ``size!`` orders occurs.

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
        Black and Rogaway, "Ciphers with arbitrary finite domains", 2002: the rectangle and the walk. The mixing
        function is SplitMix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    epochs, places = np.divmod(np.asarray(rows, np.int64), size)
    order = _mix(_mix(np.array([seed], np.uint64)) ^ np.uint64(key))
    if size <= _FEW:
        found, of_row = np.unique(epochs, return_inverse=True)
        return _sorted_by_hash(_mix(order + found.astype(np.uint64)), size)[of_row, places]
    keys = _mix(order + epochs.astype(np.uint64))
    rectangle = _Rectangle(size)
    examples = rectangle.encrypt(places.astype(np.uint64), keys)
    # Cycle walking: what lands in a cell beyond the domain is encrypted again until it is inside.
    outside = np.flatnonzero(examples >= np.uint64(size))
    while outside.size:
        examples[outside] = rectangle.encrypt(examples[outside], keys[outside])
        outside = outside[examples[outside] >= np.uint64(size)]
    return examples.astype(np.int64)


def _sorted_by_hash(keys: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """Returns one order of all examples for each key, ``[keys, size]``."""
    examples = np.arange(size, dtype=np.uint64)
    hashes = _mix(keys[:, None] + _GOLDEN * examples)
    # The lowest bits are the example, so no two numbers are equal, and sorting them needs no indices.
    low_bits = np.uint64(_FEW - 1)
    return (np.sort((hashes & ~low_bits) | examples, axis=1) & low_bits).astype(np.int64)


class _Rectangle:
    """Permutes the cells of an almost square rectangle: row and column in turn are shifted by a hash of the other."""

    def __init__(self, size: int):
        # Fewer than ``width`` cells lie beyond the domain.
        width = math.isqrt(size - 1) + 1
        self.width, self.height = np.uint64(width), np.uint64(-(-size // width))

    def encrypt(self, cells: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        row, column = np.divmod(cells, self.width)
        for turn in range(0, _ROUNDS, 2):
            column = _shifted(column, row + (keys + _CONSTANTS[turn]), self.width)
            row = _shifted(row, column + (keys + _CONSTANTS[turn + 1]), self.height)
        return row * self.width + column


def _shifted(numbers, to_hash, modulus):
    """Adds hashes to numbers, modulo a number of at most 2^20."""
    # The 40 upper bits, scaled to [0, modulus): a division costs more.
    numbers = numbers + ((_mix(to_hash) >> np.uint64(24)) * modulus >> np.uint64(40))
    # A number below the modulus wraps to one near 2^64, of which the minimum takes the number itself.
    return np.minimum(numbers, numbers - modulus)


def _mix(x):
    """Mixes 64 bits, bijectively."""
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])
