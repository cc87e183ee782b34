"""Splits a batch of rows of different lengths so that each domain gets its share of the tokens, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixjax.live.limits import spread
from mixjax.samplers.host_carried import UNIT, fixed_point

__all__ = ["TokenCounts", "carry_tokens"]


class TokenCounts(NamedTuple):
    """Holds a batch that was split by tokens.

    Attributes:
        counts: int64 ``[D]``, rows of each domain.
        tokens: int64 ``[D]``, tokens of those rows.
        lengths: int64 ``[B]``, tokens of each row, in the order of the domains and of the rows within a domain.
        carry: int64 ``[D]``, tokens owed afterwards, in units of 2⁻³².
        written_off: int64 ``[D]``, tokens that were owed to a domain without rows and went to others, in these units.
    """

    counts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    carry: NDArray[np.int64]
    written_off: NDArray[np.int64]


def carry_tokens(
    carry: NDArray[np.int64],
    weights: NDArray[np.floating],
    batch_size: int,
    length_of: Callable[[int, int], int],
    rows_left: NDArray[np.int64] | None = None,
) -> TokenCounts:
    r"""Picks the rows of a batch one by one, each of the domain that is owed most tokens.

    A row of ``l`` tokens gives each domain a claim to ``l q_d`` tokens, and takes ``l`` tokens from the domain ``e`` it
    is of: ``carry_d += l q_d - l [d = e]``. Ties go to the domain of lower index; where no domain is owed anything, to
    the first one of positive weight. Tokens that a domain was owed when its weight became 0 are still drawn, as
    :func:`mixjax.samplers.carry` does.

    *Bound.* Let ``M`` be the longest row. For any sequence of weights, a domain's tokens are less than ``M`` above the
    sum of ``l q_d`` over all rows, and at most ``M H_{D-1}`` below it, with ``H_k = 1 + 1/2 + ... + 1/k``. That holds
    after every single row, as long as no domain runs out of rows.

    *Proof.* Carries sum to zero, since the shares of each row sum to its length. So the domain that is picked is owed 0
    or more, and where it is owed 0 its weight is positive. It ends above ``-l``, which is at least ``-M``. Carries of
    other domains do not fall.

    For the other side, let ``A`` be the ``k`` domains that are owed most after a row, ``a`` the mean of their carries,
    and ``m_k`` the largest value that this mean can ever have. So ``m_D = 0``. If the row is of a domain in ``A``, the
    sum over ``A`` has not grown, since its shares of the row are at most the row. Otherwise the row is of an ``e``
    outside ``A``. Before the row, the mean over ``A`` was at least ``a - M/k``, because the row raised the sum over
    ``A`` by at most ``M``. And ``e`` was owed no less than any domain of ``A``, so the mean over ``A`` and ``e``
    together was at least ``a - M/k`` too. This gives ``m_k <= m_{k+1} + M/k``. Summed over ``k`` from 1 to ``D - 1``,
    this is ``m_1 <= M H_{D-1}``.

    Args:
        carry: int64 ``[D]``, tokens owed before the batch in units of 2⁻³²; they sum to 0.
        weights: sampling weights ``q``, shares of tokens, ``[D]``, on the simplex up to float32's rounding; 0 where no
            rows are left. Used as ``fixed_point(weights, 1)``, integers that sum to 2^32.
        batch_size: ``B``, rows to pick.
        length_of: gives the tokens of a row, from 1 to 2^24, by its domain and its number among the domain's rows of
            this batch, from 0 on.
        rows_left: int64 ``[D]``, rows that each domain still has; at least ``B`` of the domains of positive weight.
            None for no limit. A domain that has given its last row loses what it is owed, and its share of the rest of
            the batch, to the others in proportion to their weights.

    Example:
        >>> import numpy as np
        >>> from mixjax.live.tokens_carried import carry_tokens
        >>> length_of = lambda domain, number: [400, 4000][domain]
        >>> split = carry_tokens(np.zeros(2, np.int64), np.array([0.5, 0.5]), 11, length_of)
        >>> split.counts.tolist(), split.tokens.tolist(), split.carry.tolist()
        ([10, 1], [4000, 4000], [0, 0])
    """
    carry, shares = carry.copy(), fixed_point(weights, 1)
    written_off = np.zeros_like(carry)
    left = np.full(carry.size, batch_size + 1) if rows_left is None else np.minimum(rows_left, batch_size + 1)

    def close(domain):
        """Gives what a domain without rows is owed, now and in the rest of the batch, to those that have rows."""
        others = np.where(left > 0, weights, 0.0)
        if not others.any():
            return
        lost = max(int(carry[domain]), 0)
        written_off[domain] += lost
        carry[domain] -= lost
        carry[:] += spread(lost, others)
        share, shares[domain] = int(shares[domain]), 0
        shares[:] += spread(share, others)

    for domain in np.flatnonzero((left == 0) & ((carry > 0) | (shares > 0))):
        close(domain)
    picked, lengths = [], []
    counts, last = [0] * carry.size, left.tolist()
    for _ in range(batch_size):
        domain = int(carry.argmax())
        if carry[domain] == 0:
            # They sum to zero, so all of them are zero.
            domain = int((shares > 0).argmax())
        length = length_of(domain, counts[domain])
        carry += shares * length
        carry[domain] -= length * UNIT
        counts[domain] += 1
        picked.append(domain)
        lengths.append(length)
        if counts[domain] == last[domain]:
            left[domain] = 0
            close(domain)
    tokens = np.zeros_like(carry)
    np.add.at(tokens, picked, lengths)
    # Stable, so the rows of a domain stay in their order.
    order = np.argsort(np.array(picked), kind="stable")
    return TokenCounts(
        counts=np.array(counts, np.int64),
        tokens=tokens,
        lengths=np.array(lengths, np.int64)[order],
        carry=carry,
        written_off=written_off,
    )
