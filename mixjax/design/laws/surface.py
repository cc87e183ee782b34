"""Defines what proposals need of a fit: the predicted losses as functions of the mixture alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "Smoother", "Surface"]


class Surface(NamedTuple):
    """Holds the predicted losses of a fit as functions of the mixture, by the fit and by each resample.

    Attributes:
        predict: takes parameters ``[..., P]`` and mixtures ``[m, D]``; returns losses ``[..., m]``.
        slopes: takes parameters ``[B, M, P]`` and a mixture each, ``[B, D]``; returns the losses ``[B, M]`` there and
            their derivatives by the shares, ``[B, M, D]``.
        is_convex: whether every loss is a convex function of the mixture.
        is_smooth: whether ``slopes`` leads to a minimum. Trees are flat almost everywhere, and are searched instead.
        params: ``[M, P]``, the parameters of each metric.
        resampled: ``[B, M, P]``, the parameters by each resample.
    """

    predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slopes: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    is_convex: bool
    is_smooth: bool
    params: np.ndarray
    resampled: np.ndarray


class Estimate(NamedTuple):
    """Holds what was fitted to the runs.

    Attributes:
        params: ``[M, P]``, the parameters of each metric.
        resampled: ``[B, M, P]``, the parameters by each resample.
        noise: ``[M, n]``, the runs' residuals, with the variance of a new run's noise.
    """

    params: np.ndarray
    resampled: np.ndarray
    noise: np.ndarray


class Smoother(NamedTuple):
    """Holds the functions of a regression without a formula, which keeps the mixtures of its runs to predict others.

    Attributes:
        name: as ``law=`` takes it.
        equation: the method in a line, for a report.
        num_parameters: takes the number of domains; returns a number of mixtures of which there must be more.
        estimate: takes mixtures ``[n, D]``, losses ``[n, M]``, the runs' groups ``[n]``, a number of resamples and a
            random generator; returns an :class:`Estimate`.
        surface: takes the mixtures of the runs and an estimate's ``params`` and ``resampled``; returns a
            :class:`Surface`.
    """

    name: str
    equation: str
    num_parameters: Callable[[int], int]
    estimate: Callable[[np.ndarray, np.ndarray, np.ndarray, int, np.random.Generator], Estimate]
    surface: Callable[[np.ndarray, np.ndarray, np.ndarray], Surface]
