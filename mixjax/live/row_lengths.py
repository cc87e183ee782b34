"""Checks the lengths of all examples, and looks up those of the next rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live.rows import Rows

__all__ = ["RowLengths", "named_lengths"]

_LONGEST = 1 << 24

# As many examples are checked at once, so that a memory map of any size is read through a small window.
_WINDOW = 1 << 22

# Looking up a block at once costs a small part of looking up its rows one by one.
_BLOCK = 512

# Without a common factor with the block, so that its multiples are spread over it.
_STRIDE = 197


def named_lengths(
    lengths: Sequence[ArrayLike] | Mapping[str, ArrayLike], sizes: Mapping[str, int]
) -> list[NDArray[np.integer]]:
    """Returns the lengths of the examples of each domain, in the order of the sizes.

    Args:
        lengths: arrays of integers from 1 to 2^24, one for each domain, in the plan's order or by its names. Memory
            maps stay on the disk.
        sizes: number of examples of each domain.

    Raises:
        ValueError: other domains than in ``sizes``, or an array that does not hold an integer of the range for each
            example; the error names the domain and the example.
    """
    if isinstance(lengths, Mapping):
        if lengths.keys() != sizes.keys():
            raise ValueError(f"lengths must have the domains {list(sizes)}, got {list(lengths)}.")
        found = [lengths[name] for name in sizes]
    else:
        found = list(lengths)
        if len(found) != len(sizes):
            raise ValueError(f"lengths must have one array for each of {len(sizes)} domains, got {len(found)}.")
    return [_checked(name, each, size) for each, (name, size) in zip(found, sizes.items(), strict=True)]


def _checked(name: str, lengths: Any, size: int) -> NDArray[np.integer]:
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise ValueError(f"lengths of domain {name!r} must be one array of integers, got {lengths!r:.80}.") from None
    if array.shape != (size,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"lengths of domain {name!r} must be integers [{size}], one for each example, got {array.dtype} of shape "
            f"{array.shape}."
        )
    for start in range(0, size, _WINDOW):
        part = array[start : start + _WINDOW]
        if part.min() < 1 or part.max() > _LONGEST:
            example = int(np.flatnonzero((part < 1) | (part > _LONGEST))[0])
            raise ValueError(
                f"lengths of domain {name!r} must be from 1 to 2^24, got {part[example]} for example {start + example}."
            )
    return array


class RowLengths:
    """Looks up the lengths of the next rows, a block of rows at a time.

    The block that each domain stands in is kept. It is a cache, like that of :class:`mixjax.live.rows.Rows`.

    Attributes:
        totals: tokens of all examples of each domain, in a list.
    """

    def __init__(self, lengths: Sequence[NDArray[np.integer]], seed: int, sizes: Mapping[str, int]):
        """Starts with no block looked up.

        Args:
            lengths: from :func:`named_lengths`.
            seed: the plan's.
            sizes: number of examples of each domain.
        """
        self._lengths = lengths
        # The plan's own Rows would move to the next block while rows are picked, and back when they are looked up.
        self._rows = Rows(seed, sizes)
        self._block = [-1] * len(sizes)
        self._found: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(sizes)
        self.totals = [_total(each) for each in lengths]

    def of(self, domain: int, number: int) -> int:
        """Returns the tokens of a row, given by its domain and its number since the start of the run."""
        # Domains of equal weight would all need their next block in the same step, so each has other bounds.
        offset = domain * _STRIDE % _BLOCK
        block, place = divmod(number + offset, _BLOCK)
        if self._block[domain] != block:
            # The first block starts before the first row; what stands there is never asked for.
            numbers = np.maximum(np.arange(block * _BLOCK, (block + 1) * _BLOCK) - offset, 0)
            examples = self._rows.examples(np.full(_BLOCK, domain, np.int32), numbers)
            self._found[domain] = self._lengths[domain][examples].astype(np.int64)
            self._block[domain] = block
        return int(self._found[domain][place])


def _total(lengths: NDArray[np.integer]) -> int:
    windows = range(0, lengths.size, _WINDOW)
    return sum(int(lengths[start : start + _WINDOW].sum(dtype=np.int64)) for start in windows)
