"""Columns of text as features."""

import numpy as np
import pytest

from mixjax.data import features as features_of


def test_numbers_have_mean_zero_and_deviation_one():
    values = np.random.default_rng(0).normal(3.0, 5.0, 200)
    features, names = features_of.encode({"x": [repr(float(v)) for v in values]}, numbers=["x"])
    assert names == ("x",) and abs(features.mean()) < 1e-6 and abs(features.std() - 1.0) < 1e-6


def test_columns_without_spread_or_without_values_are_zero():
    features, names = features_of.encode({"same": ["2", "2"], "none": ["", "?"]}, numbers=["same", "none"])
    assert names == ("same", "none", "none missing")
    assert features.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("text", "option", "message"),
    [
        ("two", "numbers", "column 'x', row 1: expected a number, got 'two'"),
        ("nan", "numbers", "column 'x', row 1: expected a finite number, got 'nan'"),
        ("-1", "logs", "column 'x', row 1: expected a number of at least 0, got '-1'"),
    ],
)
def test_numbers_that_cannot_be_read(text, option, message):
    with pytest.raises(ValueError, match=message):
        features_of.encode({"x": ["1", text]}, **{option: ["x"]})


def test_unknown_columns_are_named():
    with pytest.raises(ValueError, match="columns 'b', 'c' are not there; known: a"):
        features_of.encode({"a": ["1"]}, numbers=["b"], categories=["c"])


def test_missing_numbers_are_nan_and_logs_are_of_one_more():
    values = features_of.numbers_of("x", ["3", "?", "", "0"], logarithm=True)
    np.testing.assert_allclose(values, [np.log(4), np.nan, np.nan, 0.0])
    np.testing.assert_allclose(features_of.numbers_of("x", ["-1.5"], logarithm=False), [-1.5])


def test_a_category_has_a_feature_a_value_and_one_for_missing():
    features, names = features_of.encode({"job": ["b", "?", "a", "b"]}, categories=["job"])
    assert names == ("job=a", "job=b", "job missing") and features.dtype == np.float32
    assert features.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
