"""Means with their errors, rounding, and the quantiles of Student's distribution."""

import math

import ml_dtypes
import numpy as np
import pytest
import scipy.stats

from mixjax.statistics import critical_value, mean_stderr, paired_difference, rounding_of, same_up_to_rounding


def test_mean_stderr():
    assert mean_stderr([2.0, math.nan, 4.0, -math.inf]) == (3.0, 1.0, 2)
    assert mean_stderr(np.full(3, 0.1)) == (0.1, 0.0, 3)  # not the rounding error of its mean
    assert mean_stderr([1.0])[::2] == (1.0, 1) and math.isnan(mean_stderr([1.0])[1])
    assert mean_stderr([math.nan])[2] == 0 and math.isnan(mean_stderr([math.nan])[0])
    # 1, 2, 3 and 4 deviate by 0.5 and 1.5 from their mean: a standard deviation of sqrt(5/3).
    assert mean_stderr([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, math.sqrt(5 / 3) / 2, 4))


def test_a_spread_within_the_rounding_is_none():
    assert mean_stderr([1.0, 1.5], rounding=0.25) == (1.25, 0.0, 2)
    assert mean_stderr([1.0, 1.5], rounding=0.24)[1] == 0.25
    assert mean_stderr([1.0, math.nan, 9.0], rounding=[0.0, 9.0, 8.0])[1] == 0.0


def test_rounding_goes_by_the_type_and_the_size():
    single = float(np.finfo(np.float32).eps)
    np.testing.assert_array_equal(rounding_of(np.float32([1, -4]), np.float32([2, 3])), [2 * single, 4 * single])
    np.testing.assert_array_equal(rounding_of([1.0, math.inf, math.nan]), [np.finfo(float).eps, 0, 0])
    np.testing.assert_array_equal(rounding_of([3, 4]), [0, 0])
    # Beside a float32 a float64 is exact.
    np.testing.assert_array_equal(rounding_of([8.0], np.float32([1.0])), [8 * single])
    assert rounding_of(np.array([1.0], ml_dtypes.bfloat16))[0] >= single


def test_same_up_to_rounding():
    assert same_up_to_rounding([1.0, 1.2], [0.1, 0.2]) and not same_up_to_rounding([1.0, 1.4], [0.1, 0.2])
    assert same_up_to_rounding([1.0, 1.2], [0.1, 0.2], 1.1) and not same_up_to_rounding([1.0, 1.2], [0.1, 0.2], 1.2)


@pytest.mark.parametrize("z", [0.0, 1.0, 2.0, 3.0, 6.0])
@pytest.mark.parametrize("n", [2, 3, 5, 100])
def test_critical_values_are_scipys(z, n):
    expected = scipy.stats.t(n - 1).isf(scipy.stats.norm.sf(z))
    assert critical_value(z, n) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_paired_difference_is_students():
    """The finite pairs alone count, and the interval and the p-value are those of scipy's paired test."""
    rng = np.random.default_rng(0)
    values, baseline = rng.normal(size=(2, 9))
    values[3] = np.nan
    found = paired_difference(values, baseline)
    kept = np.arange(9) != 3
    expected = scipy.stats.ttest_rel(values[kept], baseline[kept])
    low, high = expected.confidence_interval(0.95)
    assert found.num_seeds == 8 and found.mean == pytest.approx((values - baseline)[kept].mean())
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, expected.pvalue))


def test_a_difference_without_spread_has_no_test():
    same, other = np.float32([0.1, 0.2, 0.3]), np.float32([1.1, 1.2, 1.3])
    assert paired_difference(same, same)[:5] == (0.0, 0.0, 0.0, 0.0, 1.0)
    found = paired_difference(same, other)
    assert found.stderr == 0.0 and found.mean == pytest.approx(-1.0) and math.isnan(found.p_value)
    assert paired_difference([math.nan], [1.0]).num_seeds == 0


def test_only_paired_values_are_compared():
    with pytest.raises(ValueError, match=r"one value for each seed, got shapes \(2,\) and \(3,\)"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
