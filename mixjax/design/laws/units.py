"""Puts losses into the units in which laws are fitted, and takes the best of several fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Units", "best_of", "tamed", "units_of"]


class Units(NamedTuple):
    """Holds losses in units of the range of each metric, above the least of them.

    Attributes:
        targets: ``[K, n]``, the losses in these units, from 0 to 1.
        limits: ``[K]``, Huber's thresholds in these units.
        least: ``[K, 1]``, the least loss of each metric.
        scale: ``[K, 1]``, the range of the losses of each metric; 1 where they are all equal.
    """

    targets: np.ndarray
    limits: np.ndarray
    least: np.ndarray
    scale: np.ndarray


def units_of(losses: np.ndarray, delta: np.ndarray) -> Units:
    """Puts losses and thresholds into units of the losses' range, in which starts and bounds are the same for all laws.

    Args:
        losses: ``[K, n]``.
        delta: ``[K]``, Huber's thresholds.
    """
    least, scale = losses.min(axis=1, keepdims=True), np.ptp(losses, axis=1, keepdims=True)
    scale = np.where(scale > 0, scale, 1.0)
    return Units(targets=(losses - least) / scale, limits=delta / scale[:, 0], least=least, scale=scale)


def best_of(tries: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Takes for each problem the parameters of the fit of least loss.

    Args:
        tries: parameters ``[K, P]`` and losses ``[K]`` of fits from different starts.

    Returns:
        ``[K, P]``.
    """
    best = np.argmin([loss for _, loss in tries], axis=0)
    return np.stack([params for params, _ in tries])[best, np.arange(len(best))]


def tamed(losses: np.ndarray, fence: float) -> np.ndarray:
    """Cuts losses that are far from all others, such as those of a run that diverged.

    Huber's loss pulls as little at the fence as far beyond it. But the range of the losses is the unit of the fits'
    starts and bounds, and one run of 1e6 would make all others equal.

    Args:
        losses: ``[K, n]``.
        fence: how far beyond the middle half of the losses, in ranges of this half.

    Returns:
        ``[K, n]``.
    """
    low, high = np.quantile(losses, [0.25, 0.75], axis=1, keepdims=True)
    margin = np.where(high > low, fence * (high - low), np.inf)
    return np.clip(losses, low - margin, high + margin)
