"""Splits batches among domains by counts that carry over, in NumPy: the host's form of :mod:`mixjax.samplers.carried`.

This module loads no JAX. It gives the counts of :func:`mixjax.samplers.carry` to the bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["UNIT", "carry_counts", "fixed_point"]

UNIT = 1 << 32
"""One row in fixed point: shares and carries are multiples of 2⁻³² rows."""

# How far a batch's shares may miss the batch, as a part of the largest share, which makes up for it.
_SLACK = 2**-7


def fixed_point(weights: ArrayLike, batch_size: int) -> NDArray[np.int64]:
    """Computes each domain's share ``B q_d`` of a batch in units of 2⁻³² rows, so that the shares sum to ``B`` exactly.

    Args:
        weights: sampling weights ``q``, ``[D]``, on the simplex up to float32's rounding; used in float32.
        batch_size: ``B``, in [1, 2^24).

    Returns:
        int64 ``[D]``. A share is the float32 product rounded to 2⁻³² rows. The largest share makes up for what all of
        them together miss.

    Raises:
        ValueError: weights that are no vector, are negative or not finite, or do not sum to one; a ``batch_size`` out
            of range.

    Example:
        >>> from mixjax.samplers.host_carried import UNIT, fixed_point
        >>> (fixed_point([0.75, 0.25], 6) / UNIT).tolist()
        [4.5, 1.5]
    """
    q = np.asarray(weights, np.float32)
    if q.ndim != 1 or q.size == 0:
        raise ValueError(f"weights must be [D], one entry per domain, got shape {q.shape}.")
    if not 1 <= batch_size < 2**24:
        raise ValueError(f"batch_size must be in [1, 2^24), got {batch_size}.")
    if not (np.isfinite(q).all() and (q >= 0).all()):
        raise ValueError(f"weights must be finite and non-negative, got {q}.")
    # One rounded product: NumPy and XLA agree about it to the bit, which they would not about a sum.
    rows = np.float32(batch_size) * q
    shares = np.rint(rows.astype(np.float64) * UNIT).astype(np.int64)
    missing = batch_size * UNIT - int(shares.sum())
    largest = int(q.argmax())
    if abs(missing) > _SLACK * shares[largest]:
        raise ValueError(f"weights must sum to 1, got a sum of {q.sum(dtype=np.float64):.6g}.")
    shares[largest] += missing
    return shares


def carry_counts(
    carry: NDArray[np.int64], shares: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits a batch by the largest remainders of what each domain is owed, and carries the rest to the next batch.

    Args:
        carry: int64 ``[D]``, rows owed before this batch in units of 2⁻³²; they sum to 0.
        shares: int64 ``[D]``, from :func:`fixed_point`.
        batch_size: ``B``.

    Returns:
        ``(counts, carry)``: int64 ``[D]`` counts that sum to ``B``, and what is owed afterwards.

    Example:
        >>> import numpy as np
        >>> from mixjax.samplers.host_carried import carry_counts, fixed_point
        >>> carry, shares = np.zeros(2, np.int64), fixed_point([0.75, 0.25], 2)
        >>> first, carry = carry_counts(carry, shares, 2)
        >>> second, carry = carry_counts(carry, shares, 2)
        >>> first.tolist(), second.tolist(), carry.tolist()
        ([2, 0], [1, 1], [0, 0])
    """
    owed = carry + shares
    whole = owed >> 32
    # A domain's rows are whole, whole - 1, ... rows above the rest. All rows above ``level`` are drawn, and of those
    # at the level the ones of largest remainder.
    level = 0
    while (taken := int(np.maximum(whole - level, 0).sum())) > batch_size:
        level += 1
    counts = np.maximum(whole - level, 0)
    left = batch_size - taken
    if left:
        at_level = np.flatnonzero(whole >= level)
        # One number for remainder and domain, so that ties go to the domain of lower index.
        rank = ((owed[at_level] & (UNIT - 1)) << 31) - np.arange(at_level.size)
        counts[at_level[np.argpartition(-rank, left - 1)[:left]]] += 1
    return counts, owed - (counts << 32)
