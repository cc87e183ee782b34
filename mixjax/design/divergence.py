"""Computes the parts of the divergence of a mixture from a prior that a search for the best mixture needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixjax.design.simplex import Bounds

__all__ = ["entropy", "within_prior"]

_SMALL = 1e-5  # of shares


def entropy(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Computes :math:`r \log r` and its derivative; below a small share, its continuation by a parabola.

    The derivative at 0 is infinite. Cut off there, its jump would hold a search where it is. A small share is 1e-5, and
    the parabola is off by at most half of it.

    Args:
        shares: of any shape, at least 0.

    Returns:
        The values and the derivatives, in this shape.

    Example:
        >>> value, slope = entropy(np.array([1.0, 0.0]))
        >>> value.round(4).tolist(), slope.round(2).tolist()
        ([0.0, -0.0], [1.0, -11.51])
    """
    above = np.maximum(shares, _SMALL)
    short = shares - above
    slope = np.log(above) + 1.0
    return above * np.log(above) + short * slope + np.square(short) / (2.0 * _SMALL), slope + short / _SMALL


def within_prior(bounds: Bounds, prior: np.ndarray, domains: Sequence[str]) -> Bounds:
    """Leaves out domains without prior: the divergence of any share of them is infinite.

    Args:
        bounds: the least and the largest share of each domain.
        prior: ``[D]``.
        domains: the domains' names.

    Returns:
        The bounds, with a largest share of 0 where the prior is 0.

    Raises:
        ValueError: such a domain has a least share, or the others have no room for shares that sum to 1.
    """
    wanted = np.flatnonzero((prior == 0) & (bounds.low > 0))
    if len(wanted):
        name = domains[wanted[0]]
        raise ValueError(f"prior must be positive for {name!r}, which has a min_share, if there is a penalty.")
    high = np.where(prior == 0, 0.0, bounds.high)
    if high.sum() < 1.0 - 1e-9:
        raise ValueError(
            f"max_share must leave room for shares of domains with a prior, got a sum of {high.sum():.6g} of theirs."
        )
    return Bounds(bounds.low, high)
