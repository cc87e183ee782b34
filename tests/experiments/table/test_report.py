"""Tests the table's report on made-up results: the choice of points, the ranking, the text and the figure."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from experiments.table import report
from experiments.table.table import table


@pytest.fixture(scope="module")
def results(config):
    """Made-up numbers of the right shapes for every problem, three seeds to choose and three to judge."""
    rng, found = np.random.default_rng(0), {}
    for run in config.runs:
        points = table(run.values).points
        coords = {name: ("point", values) for name, values in points.items()}
        sizes = (len(points["pair"]), 6)
        variables = {name: (("point", "seed"), 1.0 + rng.random(sizes)) for name in ("validation", "test")}
        found[run.name] = xarray.Dataset(variables, coords | {"seed": np.arange(1000, 1006)})
    return found


def test_points_are_chosen_on_the_first_seeds_alone(results):
    data = results["linear (100, 1)"].copy(deep=True)
    own = np.flatnonzero(data["pair"].values == "ERMA")
    data["validation"][own[4], :3] = 0.1
    data["validation"][own[7], :3] = [0.0, 0.0, np.nan]  # diverged once: never chosen
    data["validation"][own[2], 3:] = 0.0  # good on the judging seeds only
    kept = report.judged(data, 3)
    chosen = kept.sel(pair="ERMA")
    assert chosen["point"].item() if "point" in chosen.coords else True
    np.testing.assert_array_equal(chosen["test"], data["test"][own[4], 3:])
    assert kept["seed"].values.tolist() == [1003, 1004, 1005]
    with pytest.raises(ValueError, match="5 seeds choose and two or more must judge, got 6 in all"):
        report.judged(data, 5)


def test_every_pair_has_a_row_and_a_better_one_is_ranked_first(results):
    better = {name: data.copy(deep=True) for name, data in results.items()}
    own = better["Adult"]["pair"].values == "group DRO"
    better["Adult"]["test"][own] = (
        better["Adult"]["test"][better["Adult"]["pair"].values == "no weighting"].values - 1.0
    )
    own = np.flatnonzero(better["Adult"]["pair"].values == "EXP3")
    better["Adult"]["test"][own, 4] = np.nan
    rows = {claim.name: claim for claim in report.claims(better, 3)}
    expected = sum(len(set(data["pair"].values)) - 1 for data in results.values())
    assert len([name for name in rows if rows[name].statement.startswith("ours")]) == expected
    assert {"va_effective_100_1", "erma_improves_10_100", "mnist_erma_improves"} <= set(rows)
    compared = report.compared(better, 3)
    assert compared[compared.problem == "Adult"].iloc[0].pair == "group DRO"
    exp3 = compared[(compared.problem == "Adult") & (compared.pair == "EXP3")].iloc[0]
    assert exp3.left_out == 1 and exp3.num_seeds == 2 and np.isclose(exp3.diverged, 1 / 6)


def test_the_table_lists_what_is_excluded_and_the_figure_has_a_panel_a_problem(results, config):
    text = report.markdown(results, config.runs[0].values.pairs, 3)
    assert "Aitken on linear (100, 1), equal noise; logistic (100, 100)" in text
    assert "two-stage FGLS on logistic (100, 100); logistic (10, 100): needs residuals" in text
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(lines) == 1 + len(config.runs[0].values.pairs)
    drawn = report.figure(results, 3)
    assert len(drawn.axes) == len(results) + 1
    plt.close(drawn)


def test_a_pair_that_no_problem_runs_is_still_listed(results, config):
    never = dataclasses.replace(config.runs[0].values.pairs[5], name="never")
    assert "| never | | excluded" in report.markdown(results, [*config.runs[0].values.pairs, never], 3)
