"""Means over seeds with their errors, and the two guards of every test on them: Student's t, and rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixjax.checks import requires
from mixjax.sweeps.arrays import as_computable

with requires("experiments", "mixjax.runner.statistics"):
    import scipy.special

__all__ = ["critical_value", "mean_stderr", "rounding_of", "same_up_to_rounding"]


def mean_stderr(values: Any, rounding: Any = 0.0) -> tuple[float, float, int]:
    """Computes the mean of the finite values, its standard error and their number.

    Args:
        values: ``[seed]``.
        rounding: how far each value may be off, ``[seed]`` or one number, as :func:`rounding_of` gives it.

    Returns:
        The mean (NaN without a finite value), its standard error (NaN for fewer than two, exactly 0 where they are all
        the same up to rounding), and n.

    Example:
        >>> mean_stderr([1.0, 3.0, float("inf")])
        (2.0, 1.0, 2)
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    rounding = np.broadcast_to(np.asarray(rounding, np.float64), values.shape)[finite]
    values = values[finite]
    if values.size == 0:
        return np.nan, np.nan, 0
    # Equal values: their computed mean and standard deviation would have a rounding error of their own.
    if np.ptp(values) == 0:
        return float(values[0]), 0.0 if values.size > 1 else np.nan, values.size
    if same_up_to_rounding(values, rounding):
        return float(values.mean()), 0.0, values.size
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)), values.size


def rounding_of(*arrays: Any) -> np.ndarray:
    """Returns how far the difference of two rounded numbers may be off, or a number itself.

    A float x of a type with the machine epsilon ε stands for numbers up to ε|x|/2 away. The difference of two such
    numbers a and b is therefore off by at most ε max(\\|a\\|, \\|b\\|).

    Args:
        *arrays: of one shape. The ε is that of the coarsest type among them; integers and booleans are exact.

    Returns:
        float64, of that shape; 0 where a number is not finite.

    Example:
        >>> rounding_of(np.float32([1.0, -8.0])) / np.finfo(np.float32).eps
        array([1., 8.])
    """
    found = [np.asarray(as_computable(np.asarray(array))) for array in arrays]
    floats = [array for array in found if array.dtype.kind == "f"]
    epsilon = max((float(np.finfo(array.dtype).eps) for array in floats), default=0.0)
    largest = np.max([np.abs(array.astype(np.float64)) for array in found], axis=0)
    return np.where(np.isfinite(largest), largest, 0.0) * epsilon


def same_up_to_rounding(values: Any, rounding: Any, value: float | None = None) -> bool:
    """Tells whether one number lies within the rounding of every value.

    Args:
        values: ``[seed]``, all finite.
        rounding: how far each may be off, ``[seed]``.
        value: that number; None asks for any.

    Returns:
        True where the values cannot be told from one number; with no values too.

    Example:
        >>> same_up_to_rounding([0.3, 0.1 + 0.2], 1e-16), same_up_to_rounding([0.3, 0.31], 1e-16)
        (True, False)
    """
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return True
    low, high = np.max(values - rounding), np.min(values + rounding)
    return bool(low <= high if value is None else low <= value <= high)


def critical_value(z: float, num_seeds: int) -> float:
    """Returns the number of standard errors that a mean of few seeds must clear, to be as sure as with z of many.

    The standard error of few seeds is itself uncertain. With t the quantile function of Student's distribution with
    n - 1 degrees of freedom, and Φ the normal distribution, the number is t(Φ(z)). At z = 2 a false claim then passes
    in 2.3 % of the cases, whatever the number of seeds, if the values are normally distributed.

    Args:
        z: the number of standard errors for many seeds, at least 0.
        num_seeds: n, at least 2.

    Returns:
        At least z.

    Example:
        >>> [round(critical_value(2.0, n), 2) for n in (2, 3, 5, 10, 20, 1000)]
        [13.97, 4.53, 2.87, 2.32, 2.14, 2.0]

    References:
        Student, "The probable error of a mean", 1908.
    """
    # By the lower tail, whose small probabilities are exact where 1 - p would be rounded. Its quantile is negative.
    tail = 0.5 * math.erfc(z / math.sqrt(2.0))
    return abs(float(scipy.special.stdtrit(num_seeds - 1, tail)))
