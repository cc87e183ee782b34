"""Projects sampling weights onto limits, and keeps what is owed within the rows that are left, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_LIMIT", "project", "spread", "within_rows_left"]

NO_LIMIT = np.iinfo(np.int64).max
"""Number of rows left of a domain that may be drawn without end."""

# Limits that are all rows left over all rows of the run come to 1 together, but for the rounding of their sum.
_ROUNDING = 1e-12


def project(weights: NDArray[np.floating], limits: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Returns the point of the simplex below some limits that is nearest to the weights in KL divergence.

    It is ``min(u, lambda q)``, with ``q`` the weights, ``u`` the limits and one ``lambda`` for all domains: the
    domains above their limit are cut to it, and the others share the rest in their old proportions.

    Args:
        weights: ``q``, ``[D]``, on the simplex.
        limits: ``u``, ``[D]``, non-negative; ``inf`` is no limit.

    Returns:
        float64 ``[D]``; None where the limits of the domains of positive weight leave less than 1 together.

    Example:
        >>> import numpy as np
        >>> from mixjax.live.limits import project
        >>> project(np.array([0.5, 0.25, 0.25]), np.array([0.2, 1.0, 1.0])).tolist()
        [0.2, 0.4, 0.4]
    """
    q, u = np.asarray(weights, np.float64), np.asarray(limits, np.float64)
    if (q <= u).all():
        return q
    drawn = np.flatnonzero(q > 0)
    # lambda rises from 1, so domains reach their limits in the order of u / q.
    order = drawn[np.argsort(u[drawn] / q[drawn], kind="stable")]
    cut = np.append(0.0, np.cumsum(u[order]))
    rest = np.append(np.cumsum(q[order][::-1])[::-1], 0.0)
    # Entry k is lambda if the first k domains of the order are cut.
    factor = (1.0 - cut[:-1]) / rest[:-1]
    fits = np.flatnonzero(factor * q[order] <= u[order] * (1.0 + 1e-12))
    if fits.size:
        projected = np.minimum(u, max(factor[fits[0]], 0.0) * q)
    elif cut[-1] >= 1.0 - _ROUNDING:
        projected = np.where(q > 0, u, 0.0)
    else:
        return None
    return projected / projected.sum()


def within_rows_left(
    owed: NDArray[np.int64], rows_left: NDArray[np.int64], weights: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cuts what domains are owed to the rows they have left, and owes the rest to the other domains.

    Args:
        owed: int64 ``[D]``, in units of 2⁻³² rows.
        rows_left: int64 ``[D]``, whole rows; :data:`NO_LIMIT` for no limit. Together they are at least what is owed.
        weights: ``[D]``, in whose proportions the other domains get the rest. Where all of those are 0, they get it by
            the rows they have left.

    Returns:
        ``(owed, written_off)``: what is owed now, with the same sum and no more than whole rows left; and what each
        domain lost, in the same units.
    """
    # Rows beyond 2^30 are never owed in one batch, and the product with the unit has to fit into 64 bits.
    room = np.minimum(rows_left, 1 << 30) << 32
    now = owed.copy()
    while (excess := np.maximum(now - room, 0)).any():
        now -= excess
        open_to = now < room
        share = np.where(open_to, weights, 0.0)
        if not share.sum() > 0:
            share = np.where(open_to, (room - now).astype(np.float64), 0.0)
        now += spread(int(excess.sum()), share)
    return now, np.maximum(owed - now, 0)


def spread(total: int, weights: NDArray[np.floating]) -> NDArray[np.int64]:
    """Splits a whole number in proportion to weights; what rounding leaves goes to the largest of them.

    Args:
        total: the number, below 2^62.
        weights: ``[D]``, non-negative, not all zero.

    Returns:
        int64 ``[D]``, which sum to ``total`` exactly.

    Example:
        >>> import numpy as np
        >>> from mixjax.live.limits import spread
        >>> spread(10, np.array([0.5, 0.25, 0.25])).tolist()
        [6, 2, 2]
    """
    share = weights.astype(np.float64)
    parts = np.floor(total * (share / share.sum())).astype(np.int64)
    parts[int(share.argmax())] += total - int(parts.sum())
    return parts
