"""Makes one number to be low of the losses of several metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import nearest
from mixjax.numbers import as_reals

__all__ = ["Objective", "as_objective"]


class Objective(NamedTuple):
    """Holds what is to be low: a weighted sum of the losses, or the worst of some of them.

    Attributes:
        name: as a report calls it.
        weights: ``[M]``; for the worst, 1 for the metrics that count and 0 for the others.
        is_worst: whether it is the worst.
    """

    name: str
    weights: np.ndarray
    is_worst: bool

    def value(self, losses: np.ndarray) -> np.ndarray:
        """Computes the objective of losses ``[..., M]``."""
        if self.is_worst:
            return losses[..., self.weights > 0].max(axis=-1)
        return losses @ self.weights

    def smooth(self, losses: np.ndarray, slopes: np.ndarray, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
        r"""Computes a differentiable stand-in, and its derivatives by the shares.

        .. math:: \max_m L_m \le \tfrac1s \log \sum_m \exp(s L_m) \le \max_m L_m + \tfrac1s \log M

        Args:
            losses: ``[B, M]``.
            slopes: ``[B, M, D]``.
            sharpness: :math:`s`; a weighted sum needs none.

        Returns:
            ``[B]`` and ``[B, D]``.
        """
        if not self.is_worst:
            return losses @ self.weights, np.einsum("bmd,m->bd", slopes, self.weights)
        kept = self.weights > 0
        losses, slopes = losses[:, kept], slopes[:, kept]
        top = losses.max(axis=1, keepdims=True)
        powers = np.exp(sharpness * (losses - top))
        total = powers.sum(axis=1, keepdims=True)
        value = top[:, 0] + np.log(total[:, 0]) / sharpness
        return value, np.einsum("bmd,bm->bd", slopes, powers / total)


def as_objective(objective: Any, metrics: Sequence[str]) -> Objective:
    """Makes the objective of what a user gives.

    Args:
        objective: None or "mean" for the mean of all metrics, "worst" for the largest of them, a metric's name or
            several for their mean, a mapping of names to weights, or ``[M]`` weights. Weights are used as they are, and
            may be negative for a metric that is to be high.
        metrics: the names.

    Returns:
        The objective.

    Raises:
        TypeError: nothing of these.
        ValueError: an unknown metric, another number of weights, or weights that are not finite or all zero.

    Example:
        >>> as_objective({"code": 2.0}, ["web", "code"])
        Objective(name='2 code', weights=array([0., 2.]), is_worst=False)
    """
    size = len(metrics)
    if isinstance(objective, str) and objective in metrics:
        return Objective(objective, np.eye(size)[list(metrics).index(objective)], False)
    if objective is None or (isinstance(objective, str) and objective == "mean"):
        return Objective(f"mean of {size} metrics" if size > 1 else metrics[0], np.full(size, 1.0 / size), False)
    if isinstance(objective, str) and objective == "worst":
        return Objective(f"worst of {size} metrics", np.ones(size), True)
    if isinstance(objective, str):
        objective = [objective]
    if isinstance(objective, Mapping):
        weights = np.zeros(size)
        for name, weight in objective.items():
            weights[_place(name, metrics)] = as_reals(f"objective of {name!r}", weight)
        name = " + ".join(f"{weight:g} {metric}" for metric, weight in objective.items())
    elif isinstance(objective, Sequence) and all(isinstance(name, str) for name in objective):
        places = [_place(name, metrics) for name in objective]
        weights = np.bincount(places, minlength=size) / max(len(places), 1)
        name = objective[0] if len(places) == 1 else f"mean of {', '.join(objective)}"
    else:
        try:
            weights = np.asarray(objective, np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                "objective must be 'mean', 'worst', names of metrics or weights by name, got "
                f"{type(objective).__name__}."
            ) from None
        name = "weighted sum of metrics"
    if weights.shape != (size,):
        raise ValueError(f"objective must have a weight for each of {size} metrics, got shape {weights.shape}.")
    if not np.isfinite(weights).all() or not weights.any():
        raise ValueError(f"objective must have finite weights that are not all zero, got {weights}.")
    return Objective(name, weights, False)


def _place(name, metrics):
    if name not in metrics:
        known = [*metrics, "mean", "worst"]
        raise ValueError(f"objective names {name!r}, which is no metric; {nearest(str(name), known)}")
    return list(metrics).index(name)
