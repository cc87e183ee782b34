"""Claims: one rule on paired seeds, and rows for JSON."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from mixjax.runner import claims
from mixjax.runner.claims import Claim, mean_stderr, near, paired, versus
from tests.runner.written import ROW

TEXTS = {"statement": "s", "source": "ours"}


def test_rows_are_plain_and_valid_json():
    claim = Claim("a", "s", "p", np.float32(1.5), np.float64("nan"), 1, np.int64(3), np.bool_(True))
    (row,) = claims.rows([claim])
    assert list(row) == list(ROW)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert (row["value"], row["stderr"], row["num_seeds"], row["holds"], row["note"]) == (1.5, None, 3, True, "")
    assert row["holds"] is True
    with pytest.raises(ValueError, match="two claims are named 'a'"):
        claims.rows([claim, claim])
    with pytest.raises(TypeError, match="list of Claim, but one item is a str"):
        claims.rows(["a"])


def test_mean_stderr():
    assert mean_stderr([2.0, math.nan, 4.0, -math.inf]) == (3.0, 1.0, 2)
    assert mean_stderr(np.full(3, 0.1)) == (0.1, 0.0, 3)  # not the rounding error of its mean
    assert mean_stderr([1.0])[::2] == (1.0, 1) and math.isnan(mean_stderr([1.0])[1])
    assert mean_stderr([math.nan])[2] == 0 and math.isnan(mean_stderr([math.nan])[0])


@pytest.mark.parametrize(
    ("values", "side", "threshold", "holds"),
    [
        ([0.0, 2.0], ">=", -1.0, True),  # mean 1, standard error 1, by exactly two of them
        ([0.0, 2.0], ">=", -0.99, None),
        ([0.0, 2.0], ">=", 3.0, False),
        ([0.0, 2.0], "<=", 3.0, True),
        ([0.0, 2.0], "<=", 2.99, None),
        ([1.0, 1.0], ">=", 1.0, True),  # no error: the side alone decides
        ([1.0, 1.0], "<=", 1.0, True),
        ([1.0, 1.0], "<=", 0.5, False),
        ([1.0], ">=", 0.0, None),
    ],
)
def test_versus(values, side, threshold, holds):
    claim = versus("c", values, side, threshold, **TEXTS)
    assert claim.holds is holds and claim.threshold == threshold and claim.num_seeds == len(values)


@pytest.mark.parametrize(
    ("b", "side", "threshold", "holds"),
    [
        ([1.0, 3.0], ">", 0.0, False),
        ([0.0, 2.0], ">", 0.0, False),  # no difference at all: decided without an error
        ([-3.0, 1.0], ">", 0.0, True),  # differences 3 and 1: mean 2, error 1, by exactly two of them
        ([-3.0, 1.0], ">", 0.1, None),
        ([-1.0, 1.0], ">", 0.0, True),
        ([-1.0, 1.0], ">", 1.0, False),  # differences that all equal the threshold do not hold
        ([1.0, 3.0], "<", 0.0, True),
        ([1.0, 3.0], "<", -0.5, True),
    ],
)
def test_paired(b, side, threshold, holds):
    claim = paired("c", [0.0, 2.0], side, b, threshold=threshold, **TEXTS)
    assert claim.holds is holds and claim.value == np.mean(np.subtract([0.0, 2.0], b))


@pytest.mark.parametrize(("tolerance", "holds"), [(3.0, True), (2.9, None), (0.5, None)])
def test_near(tolerance, holds):
    claim = near("c", [0.0, 2.0], 2.0, tolerance, note="tried", **TEXTS)
    assert claim.holds is holds and claim.note == f"tried; tolerance {tolerance:g}" and claim.threshold == 2.0
    assert near("c", [1.0, 1.0], 5.0, tolerance, **TEXTS).holds is False


def test_seeds_that_are_not_finite_are_left_out_and_named():
    values = xr.DataArray([1.0, math.nan, 3.0, 2.0], {"seed": [5, 6, 7, 8]}, ("seed",))
    claim = versus("c", values, ">=", 0.0, **TEXTS)
    assert (claim.value, claim.num_seeds, claim.holds) == (2.0, 3, True)
    assert claim.note == "1 of 4 seeds not finite, left out: 6"
    claim = paired("c", values, ">", values.copy(data=[0.0, 0.0, math.inf, 0.0]), **TEXTS)
    assert claim.num_seeds == 2 and claim.note.endswith("left out: 6, 7")
    claim = versus("c", [1.0, *[math.inf] * 12], ">=", 0.0, note="tried", **TEXTS)
    assert (
        claim.holds is None
        and claim.stderr is None
        and claim.note
        == (
            "tried; 12 of 13 seeds not finite, left out: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...; "
            "undecided: the others are fewer than half; a standard error needs two seeds"
        )
    )
    assert versus("c", [math.nan, math.nan], ">=", 0.0, **TEXTS).value is None


def test_mistakes():
    with pytest.raises(ValueError, match="side must be '>=' or '<=', got '>'"):
        versus("c", [1.0, 2.0], ">", 0.0, **TEXTS)
    with pytest.raises(ValueError, match="side must be '>' or '<', got '>='"):
        paired("c", [1.0, 2.0], ">=", [1.0, 2.0], **TEXTS)
    with pytest.raises(ValueError, match=r"one value for each seed, got shapes \(2,\) and \(3,\)"):
        paired("c", [1.0, 2.0], ">", [1.0, 2.0, 3.0], **TEXTS)
    with pytest.raises(ValueError, match=r"one-dimensional, one for each seed, got shape \(1, 2\)"):
        near("c", [[1.0, 2.0]], 1.0, 0.1, **TEXTS)
