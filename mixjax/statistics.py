"""Computes means over seeds with their errors, tests of paired differences, and Holm's correction of several tests.

Two guards stand in every test: Student's t for few seeds, and the rounding of the numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.sweeps.arrays import as_computable

with requires("experiments", "mixjax.statistics"):
    import scipy.special

__all__ = [
    "MIN_SEEDS",
    "PairedDifference",
    "critical_value",
    "holm",
    "mean_stderr",
    "paired_difference",
    "rounding_of",
    "same_up_to_rounding",
]

MIN_SEEDS = 3
"""The fewest finite seeds that decide anything.

Two seeds have one degree of freedom: a mean would have to lie 14 standard errors from the threshold, and two values
that happen to be close give the same picture as an exact effect.
"""


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


def holm(p_values: Any) -> np.ndarray:
    """Corrects p-values of several tests by Holm's step-down method, whatever their dependence.

    With the p-values in ascending order, p_(1) <= ... <= p_(m), the corrected ones are
    max over j <= i of min(1, (m - j + 1) p_(j)). Rejecting those at most α makes a false rejection among the m tests
    with a probability of at most α.

    Args:
        p_values: of any shape, in [0, 1]. A NaN stands for a test that could not be made. It stays NaN, and is not
            counted in m.

    Returns:
        The corrected p-values, float64, in the shape given.

    Raises:
        ValueError: a p-value is outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p_values = np.asarray(p_values, np.float64)
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError(f"p_values must be in [0, 1], got {p_values.tolist()}")
    # A NaN sorts last, but must not be counted among the m tests.
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values.ravel()[tests])]
    steps = (len(order) - np.arange(len(order))) * p_values.ravel()[order]
    corrected = np.full(p_values.size, np.nan)
    # The running maximum keeps the order: a larger p-value is never corrected to a smaller one.
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.reshape(p_values.shape)


class PairedDifference(NamedTuple):
    """Holds the mean difference of two methods over paired seeds, and Student's test of it.

    Attributes:
        mean: the mean of value - baseline over the seeds in which both are finite; NaN without one.
        stderr: its standard error; NaN for fewer than two seeds, and 0 where the difference is the same in all seeds.
        low: lower end of the mean's 95 % interval.
        high: upper end of this interval.
        p_value: two-sided, of no difference. Without a spread there is no test: 1 where the difference is 0, else NaN.
        num_seeds: number of seeds in which both are finite.
    """

    mean: float
    stderr: float
    low: float
    high: float
    p_value: float
    num_seeds: int


def paired_difference(values: Any, baseline: Any) -> PairedDifference:
    """Tests whether two methods differ on average over paired seeds, by Student's t.

    Args:
        values: ``[seed]``.
        baseline: ``[seed]``, the same seeds in the same order.

    Returns:
        The difference values - baseline.

    Raises:
        ValueError: the two differ in shape or are not one-dimensional.

    Example:
        >>> found = paired_difference([1.0, 2.0, 3.0, float("nan")], [2.0, 3.5, 4.5, 1.0])
        >>> round(found.mean, 3), round(found.stderr, 3), round(found.p_value, 3), found.num_seeds
        (-1.333, 0.167, 0.015, 3)
    """
    values, baseline = np.asarray(values), np.asarray(baseline)
    if values.ndim != 1 or values.shape != baseline.shape:
        raise ValueError(
            f"values and baseline must have one value for each seed, got shapes {values.shape} and {baseline.shape}."
        )
    # In the types given, which tell how far the numbers are rounded.
    rounding = rounding_of(values, baseline)
    values, baseline = values.astype(np.float64), baseline.astype(np.float64)
    finite = np.isfinite(values) & np.isfinite(baseline)
    # The difference of two large losses may be beyond the largest float.
    with np.errstate(over="ignore", invalid="ignore"):
        difference, rounding = values[finite] - baseline[finite], rounding[finite]
        mean, stderr, n = mean_stderr(difference, rounding)
        half_width = stderr * scipy.special.stdtrit(n - 1, 0.975)
        low, high = mean - half_width, mean + half_width
    if stderr == 0:
        # A t-test compares the mean with its spread, and there is none. No difference at all is surely no evidence.
        p_value = 1.0 if same_up_to_rounding(difference, rounding, 0.0) else np.nan
    else:
        p_value = 2 * scipy.special.stdtr(n - 1, -abs(mean) / stderr)
    return PairedDifference(
        mean=float(mean),
        stderr=float(stderr),
        low=float(low),
        high=float(high),
        p_value=float(p_value),
        num_seeds=n,
    )
