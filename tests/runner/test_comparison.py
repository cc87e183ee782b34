"""Comparisons over paired seeds: by hand, against scipy, with runs that diverged, unequal seeds and no variation."""

import math
import warnings

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mixjax.runner.comparison import divergent_runs, paired_table
from mixjax.statistics import holm


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def frame(columns, seeds=None, **others):
    """One row a seed and label, from {label: values}."""
    rows = [
        {**others, "method": label, "seed": seed, "loss": value}
        for label, values in columns.items()
        for seed, value in zip(seeds or range(len(values)), values, strict=True)
    ]
    return pd.DataFrame(rows)


def only(table):
    assert len(table) == 1
    return table.iloc[0]


def test_holm_by_hand():
    # 4 tests in ascending order: 4 * 0.005, 3 * 0.01, 2 * 0.03, then 1 * 0.04, which may not be below the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.4]), [0.8, 0.8])
    np.testing.assert_allclose(holm([0.9, 0.6, 0.01]), [1.0, 1.0, 0.03])
    np.testing.assert_allclose(holm(0.02), 0.02)
    assert holm([]).shape == (0,)


def test_holm_leaves_tests_that_were_not_made_out():
    np.testing.assert_allclose(holm([[math.nan, 0.02], [0.01, math.nan]]), [[math.nan, 0.02], [0.02, math.nan]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_its_definition(p_values):
    m = len(p_values)
    rank = sorted(range(m), key=lambda i: p_values[i])
    expected = [max(min(1, (m - k) * p_values[rank[k]]) for k in range(rank.index(i) + 1)) for i in range(m)]
    np.testing.assert_allclose(holm(p_values), expected)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.inf])
def test_holm_takes_probabilities(bad):
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\], got \[0\.5, "):
        holm([0.5, bad])


def test_a_table_by_hand():
    row = only(paired_table(frame({"sgd": [3, 4, 5, 7], "erma": [2, 2, 4, 7]}), "loss", "method", better="lower"))
    assert (row.method, row.difference, row.value, row.baseline) == ("erma", -1.0, 3.75, 4.75)
    assert row.stderr == pytest.approx(math.sqrt(2 / 3) / 2)  # of -1, -2, -1, 0
    assert (row.wins, row.ties, row.num_seeds, row.left_out, row.unpaired) == (3, 1, 4, 0, 0)


def test_errors_and_p_values_are_scipys():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(mean, 1, 12) for name, mean in (("sgd", 0), ("erma", 1), ("va", 0.2))}
    table = paired_table(frame(values), "loss", "method", baseline="erma", better="higher")
    assert list(table.method) == ["sgd", "va"]
    for row in table.itertuples():
        test = scipy.stats.ttest_rel(values[row.method], values["erma"])
        assert row.p_value == pytest.approx(test.pvalue, rel=1e-9)
        assert (row.low, row.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
        assert row.stderr == pytest.approx(scipy.stats.sem(values[row.method] - values["erma"]))
        assert row.wins == (values[row.method] > values["erma"]).sum()
    np.testing.assert_array_equal(table.p_holm, holm(table.p_value))
    assert (table.p_holm >= table.p_value).all() and not table.p_holm.equals(table.p_value)


@pytest.mark.parametrize(
    ("erma", "verdict"),
    [
        ([2, 2.1, 1.9, 2], "better"),
        ([4, 4.1, 3.9, 4], "worse"),
        ([2, 4, 3.5, 2.4], "undecided"),
        ([3, 3, 3, 3], "undecided"),
        ([2, 2, 2, 2], "better"),  # the same difference in all seeds
        ([2, 2.1, 1.9, math.nan], "better"),
        ([2, 2, math.nan, math.nan], "undecided"),
        ([1e200, -1e200, 1e200, 1e200], "undecided"),
    ],
)
def test_the_verdict_is_that_of_holm_at_five_percent_either_way(erma, verdict):
    values = frame({"sgd": [3.0] * 4, "erma": erma})
    opposite = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert only(paired_table(values, "loss", "method", better="lower")).verdict == verdict
    assert only(paired_table(values, "loss", "method", better="higher")).verdict == opposite[verdict]


def test_seeds_that_diverged_are_left_out_and_counted():
    sgd = [1.0, math.nan, 3.0, math.inf, 5.0, 6.0]
    erma = [0.5, 1.0, math.nan, math.inf, -math.inf, 5.0]
    row = only(paired_table(frame({"sgd": sgd, "erma": erma}), "loss", "method", better="lower"))
    assert (row.difference, row.value, row.num_seeds, row.left_out, row.wins) == (-0.75, 2.75, 2, 4, 2)


@pytest.mark.parametrize(("erma", "left_out"), [([math.nan] * 3, 3), ([1.0, math.nan, math.nan], 2)])
def test_without_two_seeds_there_is_no_test(erma, left_out):
    table = paired_table(frame({"sgd": [1, 1, 2], "erma": erma, "va": [0, 1, 0]}), "loss", "method", better="lower")
    row, other = table.iloc[0], table.iloc[1]
    assert (row.left_out, row.num_seeds) == (left_out, 3 - left_out)
    assert np.isnan([row.stderr, row.low, row.p_value, row.p_holm]).all()
    assert np.isnan(row.difference) == (left_out == 3)
    assert other.p_holm == other.p_value  # the only test made


@pytest.mark.parametrize(("shift", "p", "wins", "ties"), [(0.0, 1.0, 0, 3), (0.1, math.nan, 3, 0)])
@pytest.mark.parametrize("sgd", [np.zeros(3), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0], np.float32)])
def test_differences_that_do_not_vary_have_no_test(shift, p, wins, ties, sgd):
    erma = (sgd + shift).astype(sgd.dtype)  # 1.1 - 1 and 3.1 - 3 differ by a rounding error
    values = frame({"sgd": sgd, "erma": erma}).astype({"loss": sgd.dtype})
    row = only(paired_table(values, "loss", "method", better="higher"))
    assert (row.difference, row.low, row.high) == pytest.approx((shift,) * 3, abs=1e-6) and row.stderr == 0.0
    assert (row.wins, row.ties) == (wins, ties)
    np.testing.assert_equal([row.p_value, row.p_holm], [p, p])


def test_unequal_seeds_are_paired_by_name():
    both = pd.concat([frame({"sgd": [9, 1, 2]}, [3, 4, 5]), frame({"erma": [1, 0, 7, 7]}, [5, 4, 6, 7])])
    row = only(paired_table(both, "loss", "method", better="lower"))
    assert (row.difference, row.stderr, row.num_seeds, row.unpaired) == (-1.0, 0.0, 2, 3)


def test_other_columns_are_kept_apart():
    table = paired_table(
        pd.concat(
            [
                frame({"sgd": [1, 2], "erma": [0, 0]}, rate="0.1"),
                frame({"sgd": [5, 5], "erma": [9, 8], "va": [5, 5]}, rate="1"),
                frame({"va": [0, 0]}, rate="10"),  # no baseline here
            ]
        ),
        "loss",
        "method",
        better="lower",
    )
    assert table[["rate", "method"]].values.tolist() == [["0.1", "erma"], ["1", "erma"], ["1", "va"], ["10", "va"]]
    assert table.difference[:3].tolist() == [-1.5, 3.5, 0.0]
    assert (table.num_seeds[3], table.unpaired[3]) == (0, 2) and math.isnan(table.difference[3])
    np.testing.assert_array_equal(table.p_holm, holm(table.p_value))  # over all of the table


GOOD = {"sgd": [1, 2], "erma": [0, 0]}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (GOOD, {"along": "rule"}, r"frame must have columns 'loss', 'rule' and 'seed', got \['method', 'seed', 'loss'"),
        (GOOD, {"metric": "error"}, "frame must have columns 'error'"),
        (GOOD, {"better": "faster"}, "better must be 'lower' or 'higher', got 'faster'"),
        (GOOD, {"baseline": "adam"}, r"baseline must be a label of 'method', one of \['sgd', 'erma'\], got 'adam'"),
        ({"sgd": [1, 2]}, {}, r"'method' must have two labels or more to compare, got \['sgd'\]"),
    ],
)
def test_mistakes(columns, options, message):
    options = {"metric": "loss", "along": "method", "better": "lower"} | options
    with pytest.raises(ValueError, match=message):
        paired_table(frame(columns), **options)


def test_rows_that_cannot_be_paired():
    with pytest.raises(ValueError, match=r"one row for each of \['method', 'seed'\], got several"):
        paired_table(frame(GOOD, seeds=[3, 3]), "loss", "method", better="lower")
    with pytest.raises(ValueError, match=r"no column named like one of the result, got \['wins'\]"):
        paired_table(frame(GOOD, wins=3), "loss", "method", better="lower")
    apart = pd.concat([frame({"sgd": [1, 2]}, [0, 1], rate="1"), frame({"erma": [1, 2]}, [2, 3], rate="1")])
    other = pd.concat([frame({"sgd": [1, 2]}, rate="1", run="a"), frame({"erma": [1, 2]}, rate="2", run="a")])
    with pytest.raises(ValueError, match="'rate' is 1 for 'sgd', and 2 for the other labels of 'method'"):
        paired_table(other, "loss", "method", better="lower")
    with pytest.raises(ValueError, match="no seed in common: no label of 'method' has one that 'sgd' has too within"):
        paired_table(apart, "loss", "method", better="lower")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_diverged(dtype):
    loss = np.zeros((2, 3, 4))
    loss[0, 1, 2] = math.nan
    error = np.zeros((3, 2))
    error[2, 1] = -math.inf
    variables = {
        "loss": (("gamma", "seed", "step"), loss.astype(dtype)),
        "error": (("seed", "method"), error),
        "count": ("seed", [1, 2, 3]),
        "name": ("seed", ["a", "b", "c"]),
    }
    bad = divergent_runs(xr.Dataset(variables, {"gamma": [0.1, 1.0], "seed": [5, 6, 7]}))
    assert bad.dims == ("gamma", "seed") and bad.dtype == bool and bad.seed.values.tolist() == [5, 6, 7]
    assert bad.values.tolist() == [[False, True, True], [False, False, True]]
    assert not divergent_runs(xr.Dataset({"count": ("seed", [1, 2])})).any()


def test_diverged_needs_seeds():
    with pytest.raises(ValueError, match=r"dataset must have metrics with a dimension 'seed', got \['loss'\]"):
        divergent_runs(xr.Dataset({"loss": ("step", [1.0])}))
    with pytest.raises(ValueError, match="got no metrics"):
        divergent_runs(xr.Dataset())
