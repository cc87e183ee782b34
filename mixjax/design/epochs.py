"""Lets small runs repeat each domain as often as the big run will: simulated epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixjax.checks import check_integer, check_positive

__all__ = ["proxy_sizes", "subset"]


def proxy_sizes(sizes: Any, budget_big: float, budget_proxy: float) -> np.ndarray:
    r"""Computes how many examples of each domain a proxy may see, so that it repeats them as the big run does.

    .. math:: n^{\text{proxy}}_d = n_d \cdot \text{budget}_\text{proxy} / \text{budget}_\text{big}

    A run that spends a share r of its budget B on a domain of n examples sees it :math:`r B / n` times. For a proxy to
    see it as often at every mixture, its part of the domain must be as small as its budget. A proxy that draws from
    all examples never meets their repetition, and a domain that is scarce for the big run looks better than it is.

    Args:
        sizes: ``[D]``, the domains' sizes, in examples or tokens.
        budget_big: what the big run will draw, in the same unit.
        budget_proxy: what a proxy draws, in the same unit; at most ``budget_big``.

    Returns:
        int64 ``[D]``, rounded to the nearest, at least 1 for a domain that is not empty.

    Raises:
        ValueError: sizes that are no counts, a budget that is not positive, or a proxy larger than the big run.

    Example:
        >>> proxy_sizes([1_000_000, 30_000], budget_big=2_000_000, budget_proxy=20_000).tolist()
        [10000, 300]
    """
    sizes = np.asarray(sizes)
    if sizes.ndim != 1 or not sizes.size:
        raise ValueError(f"sizes must be [D], one per domain, got shape {sizes.shape}.")
    check_integer("sizes", sizes, 0)
    check_positive("budget_big", budget_big)
    check_positive("budget_proxy", budget_proxy)
    if budget_proxy > budget_big:
        raise ValueError(f"budget_proxy must be at most budget_big, got {budget_proxy:g} and {budget_big:g}.")
    scaled = np.round(sizes.astype(np.float64) * (budget_proxy / budget_big))
    return np.where(sizes > 0, np.maximum(scaled, 1.0), 0.0).astype(np.int64)


def subset(size: int, num: int, seed: int = 0) -> np.ndarray:
    """Chooses the examples of a domain that proxies see.

    All proxies of a swarm take the same ones: then mixtures differ by their shares alone. With another seed for a
    second swarm, the two tell how much the choice matters. A smaller number takes a part of a larger one's examples.

    Args:
        size: number of examples of the domain.
        num: number of examples to choose, at most ``size``.
        seed: seed of the choice; a domain should have its own.

    Returns:
        int64 ``[num]``, sorted.

    Raises:
        ValueError: a number that is negative or above the size.

    Example:
        >>> subset(10, 3)
        array([2, 4, 6])
    """
    check_integer("size", size, 0)
    check_integer("num", num, 0)
    check_integer("seed", seed, 0)
    if num > size:
        raise ValueError(f"num must be at most the size of the domain, {size}, got {num}.")
    return np.sort(np.random.default_rng(seed).permutation(size)[:num])
