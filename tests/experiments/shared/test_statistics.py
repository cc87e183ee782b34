"""Tests means over seeds and their errors against NumPy."""

import warnings

import numpy as np
import pytest
import xarray

from experiments.shared.sentences import text
from experiments.shared.statistics import error_bars, mean_stderr, share_error_bars
from mixjax import statistics

VALUES = np.random.default_rng(0).normal(size=(3, 7))
ARRAY = xarray.DataArray(VALUES, dims=("step", "seed"))


def test_the_mean_and_its_error_are_over_seeds_alone():
    mean, stderr = mean_stderr(ARRAY)
    np.testing.assert_allclose(mean, VALUES.mean(1))
    np.testing.assert_allclose(stderr, VALUES.std(1, ddof=1) / np.sqrt(7))
    np.testing.assert_array_equal(error_bars(ARRAY)[1], 2 * stderr)


def test_numbers_have_the_error_that_the_claims_have():
    mean, stderr, _ = statistics.mean_stderr(VALUES[0])
    assert mean_stderr(VALUES[0]) == (mean, stderr)
    assert np.isnan(mean_stderr([1.0, np.nan])[0])


def test_shares_have_a_binomials_error():
    holds = (ARRAY > 0).astype(float)
    share, error = share_error_bars(holds)
    p = (VALUES > 0).mean(1)
    np.testing.assert_allclose(share, p)
    np.testing.assert_allclose(error, 2 * np.sqrt(p * (1 - p) / 7))


@pytest.mark.parametrize("values", [[2.0], ARRAY.isel(seed=[0]), ARRAY.isel(seed=[0], step=0)])
def test_one_seed_has_a_mean_and_no_error_and_no_warning(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, stderr = mean_stderr(values)
        assert np.isfinite(mean).all() and np.isnan(stderr).all() and np.shape(mean) == np.shape(stderr)
        assert "nan" not in text(np.ravel(values)[:1])
