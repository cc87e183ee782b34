"""Defines what a law is: functions that fit, predict and differentiate a loss as a function of the mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Law"]


class Law(NamedTuple):
    """Holds the functions of a law, in the shape of a pair ``(fit, predict)`` with what intervals and proposals need.

    A law treats each metric alone: ``K`` problems are ``K`` columns of losses on the same ``n`` mixtures. A bootstrap
    is therefore nothing but more columns.

    Attributes:
        name: as ``law=`` takes it.
        equation: the law in a line, for a report.
        num_parameters: takes the number of domains; returns the number of parameters of a metric.
        fit: takes mixtures ``[n, D]``, losses ``[K, n]``, Huber's thresholds ``[K]`` and parameters to start from,
            ``[K, P]`` or None; returns parameters ``[K, P]``.
        predict: takes parameters ``[..., P]`` and mixtures ``[m, D]``; returns losses ``[..., m]``.
        jacobian: takes parameters ``[K, P]`` and mixtures ``[n, D]``; returns the derivatives of the predictions by the
            parameters, ``[K, n, P]``; ``[1, n, P]`` where they are the same for all problems.
        slopes: takes parameters ``[B, M, P]`` and a mixture each, ``[B, D]``; returns the losses ``[B, M]`` there and
            their derivatives by the shares, ``[B, M, D]``.
        is_convex: whether every loss is a convex function of the mixture.
    """

    name: str
    equation: str
    num_parameters: Callable[[int], int]
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    jacobian: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slopes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    is_convex: bool
