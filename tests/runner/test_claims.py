"""Claims: one rule on paired seeds, and rows for JSON."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mixjax.runner import claims
from mixjax.runner.claims import Claim, near, paired, versus
from mixjax.statistics import MIN_SEEDS, critical_value
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


# Of 0, 2 and 4 the mean is 2 and the standard error 2 / sqrt(3). Student's t with two degrees of freedom exceeds
# 4.52654 with a probability of 0.02275, as a normal number exceeds 2.
SPREAD = [0.0, 2.0, 4.0]
CLEARED = 4.526537 * 2 / math.sqrt(3)


@pytest.mark.parametrize(
    ("values", "side", "threshold", "holds"),
    [
        (SPREAD, ">=", 2 - CLEARED - 1e-5, True),
        (SPREAD, ">=", 2 - CLEARED + 1e-5, None),
        (SPREAD, ">=", 2 + CLEARED + 1e-5, False),
        (SPREAD, "<=", 2 + CLEARED + 1e-5, True),
        (SPREAD, "<=", 2 + CLEARED - 1e-5, None),
        ([1.0, 1.0, 1.0], ">=", 1.0, True),  # no error: the side alone decides
        ([1.0, 1.0, 1.0], "<=", 1.0, True),
        ([1.0, 1.0, 1.0], "<=", 0.5, False),
        ([1.0, 1.0], ">=", 0.0, None),  # two seeds decide nothing
        ([1.0], ">=", 0.0, None),
    ],
)
def test_versus(values, side, threshold, holds):
    claim = versus("c", values, side, threshold, **TEXTS)
    assert claim.holds is holds and claim.threshold == threshold and claim.num_seeds == len(values)


@pytest.mark.parametrize(
    ("b", "side", "threshold", "holds"),
    [
        ([1.0, 3.0, 5.0], ">", 0.0, False),
        (SPREAD, ">", 0.0, False),  # no difference at all: decided without an error
        ([-8.0, -7.0, -4.0], ">", 25 / 3 - 4.526537 / 3 - 1e-5, True),  # differences 8, 9, 8
        ([-8.0, -7.0, -4.0], ">", 25 / 3 - 4.526537 / 3 + 1e-5, None),
        ([-1.0, 1.0, 3.0], ">", 0.0, True),
        ([-1.0, 1.0, 3.0], ">", 1.0, False),  # differences that all equal the threshold do not hold
        ([1.0, 3.0, 5.0], "<", 0.0, True),
        ([1.0, 3.0, 5.0], "<", -0.5, True),
    ],
)
def test_paired(b, side, threshold, holds):
    claim = paired("c", SPREAD, side, b, threshold=threshold, **TEXTS)
    assert claim.holds is holds and claim.value == np.mean(np.subtract(SPREAD, b))


@pytest.mark.parametrize(("tolerance", "holds"), [(CLEARED + 1.001, True), (CLEARED + 0.999, None), (0.5, None)])
def test_near(tolerance, holds):
    claim = near("c", SPREAD, 3.0, tolerance, note="tried", **TEXTS)
    assert claim.holds is holds and claim.note == f"tried; tolerance {tolerance:g}" and claim.threshold == 3.0
    assert near("c", [1.0, 1.0, 1.0], 99.0, tolerance, **TEXTS).holds is False


@pytest.mark.parametrize("num_seeds", [3, 4, 5, 10, 20])
def test_a_claim_at_its_threshold_holds_by_chance_as_rarely_at_any_number_of_seeds(num_seeds):
    values = np.random.default_rng(num_seeds).normal(size=(4000, num_seeds))
    held = [versus("c", row, ">=", 0.0, **TEXTS).holds for row in values]
    rate, error = 0.02275, math.sqrt(0.02275 / 4000)
    assert abs(held.count(True) / 4000 - rate) < 4 * error
    assert abs(held.count(False) / 4000 - rate) < 4 * error


def test_a_spread_of_rounding_errors_counts_as_none():
    threes = [0.1 + 0.2, 0.3, 0.3]
    assert paired("c", threes, ">", [0.3] * 3, **TEXTS).holds is False  # 5e-17 is no difference
    assert versus("c", threes, "<=", 0.3, **TEXTS).holds is True
    claim = paired("c", [1.1, 2.1, 3.1], ">", [1.0, 2.0, 3.0], **TEXTS)
    assert (claim.stderr, claim.holds) == (0.0, True)
    # In float32 the same values are a hundred million times as coarse.
    single = np.float32([0.3, 0.30000003, 0.3])
    assert versus("c", single, ">=", 0.3, **TEXTS).holds is True
    assert versus("c", single.astype(np.float64), ">=", 0.3, **TEXTS).holds is None
    # One large value does not make the others coarse.
    assert paired("c", [1e12, 1.0, 3.0, 2.0], ">", [1e12, 0.0, 1.0, 1.5], **TEXTS).stderr > 0


@pytest.mark.parametrize(("lost", "holds"), [(3, True), (4, None), (5, None)])
def test_a_claim_needs_a_majority_of_finite_seeds(lost, holds):
    claim = versus("c", [1.0, 1.1, 0.9, 1.0, *[math.inf] * lost], ">=", 0.0, **TEXTS)
    assert claim.holds is holds and claim.num_seeds == 4
    assert ("undecided: the others are no more than half" in claim.note) == (holds is None)


def test_seeds_that_are_not_finite_are_left_out_and_named():
    values = xr.DataArray([1.0, math.nan, 3.0, 2.0], {"seed": [5, 6, 7, 8]}, ("seed",))
    claim = versus("c", values, ">=", -1.0, **TEXTS)
    assert (claim.value, claim.num_seeds, claim.holds) == (2.0, 3, True)
    assert claim.note == "1 of 4 seeds not finite, left out: 6"
    claim = paired("c", values, ">", values.copy(data=[0.0, 0.0, math.inf, 0.0]), **TEXTS)
    assert claim.num_seeds == 2 and "left out: 6, 7; undecided" in claim.note
    claim = versus("c", [1.0, *[math.inf] * 12], ">=", 0.0, note="tried", **TEXTS)
    assert (claim.holds, claim.stderr) == (None, None)
    assert claim.note == (
        "tried; 12 of 13 seeds not finite, left out: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...; "
        "undecided: the others are no more than half; undecided: a claim needs 3 finite seeds"
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


COMMITTED = sorted((Path(__file__).parents[2] / "experiments").rglob("claims.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_claims_are_what_the_rule_gives(path):
    for row in json.loads(path.read_text(encoding="utf-8")):
        if row["num_seeds"] < MIN_SEEDS:
            assert row["holds"] is None and "needs 3 finite seeds" in row["note"], row
        elif row["holds"] is not None and row["stderr"]:
            distance = abs(row["value"] - row["threshold"])
            assert distance >= critical_value(2.0, row["num_seeds"]) * row["stderr"] or "tolerance" in row["note"], row


def test_pairs_go_by_the_names_of_the_seeds():
    a = xr.DataArray([1.0, 2.0, 3.0, 5.0], {"seed": [0, 1, 2, 3]}, ("seed",))
    b = xr.DataArray([5.6, 1.5, 3.5, 2.7], {"seed": [3, 0, 2, 1]}, ("seed",))
    claim = paired("x", a, "<", b, statement="s", source="p")
    assert claim.holds and claim.value == pytest.approx(-0.575) and claim.stderr < 0.05
    with pytest.raises(ValueError, match=r"a and b must have the same seeds, got \[0, 1, 2, 3\] and \[7, 8, 9, 10\]"):
        paired("x", a, "<", b.assign_coords(seed=[7, 8, 9, 10]), statement="s", source="p")


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_not_a_number_decides_nothing():
    huge = versus("x", [1e308, 1e308, 1.1e308], ">=", 0.5, statement="s", source="p")
    assert huge.holds is None and "beyond the largest float" in huge.note
    unknown = versus("x", [1.0, 2.0, 3.0], ">=", math.nan, statement="s", source="p")
    assert unknown.holds is None and "the threshold is not a number" in unknown.note
    for z in (-1.0, math.nan):
        with pytest.raises(ValueError, match="z must be at least 0"):
            versus("x", [1.0, 2.0, 3.0], ">=", 0.0, statement="s", source="p", z=z)
