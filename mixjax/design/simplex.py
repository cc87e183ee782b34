"""Tells which mixtures are within bounds, and finds the nearest one that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import nearest
from mixjax.numbers import as_reals

__all__ = ["Bounds", "as_bounds", "project"]


class Bounds(NamedTuple):
    """Holds the least and the largest share of each domain.

    Attributes:
        low: ``[D]``, the least shares.
        high: ``[D]``, the largest shares.
    """

    low: np.ndarray
    high: np.ndarray

    def allow(self, mixtures: np.ndarray) -> np.ndarray:
        """Tells which mixtures ``[m, D]`` are within the bounds, up to rounding."""
        return np.all((mixtures >= self.low - 1e-9) & (mixtures <= self.high + 1e-9), axis=-1)


def as_bounds(domains: Sequence[str], min_share: Any = None, max_share: Any = None) -> Bounds:
    """Makes bounds of what a user gives: one number, one for each domain, or numbers by name.

    Args:
        domains: the domains' names.
        min_share: the least share: a number, ``[D]``, or a mapping of some domains to numbers; None is 0.
        max_share: the largest share, in the same forms; None is 1.

    Returns:
        The bounds.

    Raises:
        TypeError: shares that are no numbers.
        ValueError: an unknown domain, a share outside [0, 1], a least share above the largest, or no mixture within.

    Example:
        >>> as_bounds(["web", "code"], max_share={"web": 0.6}).high.tolist()
        [0.6, 1.0]
    """
    low = _by_domain("min_share", domains, min_share, 0.0)
    high = _by_domain("max_share", domains, max_share, 1.0)
    over = np.flatnonzero(low > high)
    if len(over):
        i = over[0]
        raise ValueError(f"min_share of {domains[i]!r} must be at most max_share, got {low[i]:g} and {high[i]:g}.")
    if high.sum() < 1.0 - 1e-9:
        raise ValueError(f"max_share must leave room for shares that sum to 1, got a sum of {high.sum():.6g}.")
    if low.sum() > 1.0 + 1e-9:
        raise ValueError(f"min_share must leave room for shares that sum to 1, got a sum of {low.sum():.6g}.")
    return Bounds(low, high)


def _by_domain(name, domains, given, default):
    if isinstance(given, Mapping):
        shares = np.full(len(domains), default)
        for domain, share in given.items():
            if domain not in domains:
                raise ValueError(f"{name} names {domain!r}, which is no domain; {nearest(str(domain), domains)}")
            shares[list(domains).index(domain)] = as_reals(f"{name} of {domain!r}", share)
    else:
        shares = as_reals(name, default if given is None else given)
        if shares.shape not in ((), (len(domains),)):
            raise ValueError(f"{name} must be a number or one per domain, [{len(domains)}], got shape {shares.shape}.")
        shares = np.broadcast_to(shares, len(domains)).copy()
    bad = np.flatnonzero(~((shares >= 0) & (shares <= 1)))
    if len(bad):
        raise ValueError(f"{name} of {domains[bad[0]]!r} must be in [0, 1], got {shares[bad[0]]:g}.")
    return shares


def project(points: np.ndarray, bounds: Bounds) -> np.ndarray:
    r"""Finds the nearest mixture within bounds to each point.

    .. math:: r_d = \min(\max(x_d - \mu, l_d), u_d), \qquad \sum_d r_d = 1

    The sum falls as :math:`\mu` grows, and is linear between the values at which a share meets a bound. Bisection finds
    it in as many steps as a double has bits.

    Args:
        points: ``[B, D]``.
        bounds: a mixture must be within them.

    Returns:
        ``[B, D]``.

    Example:
        >>> project(np.array([[0.9, 0.5, 0.0]]), as_bounds(["a", "b", "c"], max_share=0.6)).round(3).tolist()
        [[0.6, 0.4, 0.0]]
    """
    low = (points - bounds.high).min(axis=1)
    high = (points - bounds.low).max(axis=1)
    for _ in range(60):
        middle = 0.5 * (low + high)
        total = np.clip(points - middle[:, None], bounds.low, bounds.high).sum(axis=1)
        low, high = np.where(total > 1.0, middle, low), np.where(total > 1.0, high, middle)
    return np.clip(points - (0.5 * (low + high))[:, None], bounds.low, bounds.high)
