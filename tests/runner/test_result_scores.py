"""Tests the scores by case that are read from results of segmentation experiments."""

import numpy as np
import pytest
import xarray

from mixjax.runner.result_scores import result_scores
from mixjax.runner.sites import site_report


def made_up(methods):
    """Two seeds, three test cases at two centres, two regions; every score is another number."""
    dims = ("seed", "method", "case", "region")
    dice = np.arange(2.0 * len(methods) * 3 * 2).reshape(2, len(methods), 3, 2)
    coords = {"seed": [7, 8], "method": methods, "case": ["A", "A", "B"], "region": ["core", "whole"]}
    return xarray.Dataset({"dice": (dims, dice), "loss": (("seed", "method"), dice[:, :, 0, 0])}, coords=coords)


def test_each_test_case_of_each_seed_is_a_case():
    data = made_up(["ERM", "DRO"])
    report = site_report(result_scores({"run": data}), ["ERM"])
    dice = data["dice"].sel({"method": "ERM", "region": "core"})
    level = report.levels.query("site == 'A' and label == 'core' and method == 'ERM'").iloc[0]
    assert level["cases"] == 4 and level["mean"] == dice.isel(case=[0, 1]).mean()
    assert level["worst"].startswith("0 of seed 7 (0.0)")
    differences = report.differences.query("site == 'B' and label == 'whole'").iloc[0]
    assert (differences["cases"], differences["difference"]) == (2, 6.0)


def test_a_case_that_two_seeds_have_tested_is_one_case():
    # Case 4 is at A, and tested by both seeds.
    data = made_up(["ERM", "DRO"]).assign(case_number=(("case", "seed"), [[4, 9], [2, 4], [7, 5]]))
    table = result_scores({"run": data})
    levels = site_report(table, ["ERM"]).levels.query("label == 'core' and method == 'ERM'").set_index("site")
    assert levels["cases"].to_dict() == {"A": 3, "B": 2, "all sites": 5}
    dice = data["dice"].sel({"method": "ERM", "region": "core"}).to_numpy()
    four = (dice[0, 0] + dice[1, 1]) / 2
    assert levels["mean"]["A"] == pytest.approx(np.mean([four, dice[0, 1], dice[1, 0]]))


def test_methods_of_several_runs_keep_apart():
    table = result_scores({"SGD": made_up(["ERM"]), "Nesterov": made_up(["ERM", "DRO"])})
    assert list(dict.fromkeys(table["method"])) == ["SGD, ERM", "Nesterov, ERM", "Nesterov, DRO"]
    assert len(table) == 2 * 3 * 2 * 3


def test_the_order_of_dimensions_does_not_matter_and_further_ones_are_labels():
    data = made_up(["ERM", "DRO"])
    turned = result_scores({"run": data.transpose("region", "case", "method", "seed")})
    keys = ["site", "case", "label", "method"]
    want = result_scores({"run": data}).sort_values(keys, ignore_index=True)
    assert turned.sort_values(keys, ignore_index=True).equals(want)
    plain = result_scores({"run": data.isel(region=0, drop=True)})
    assert set(plain["label"]) == {""}
    deep = result_scores({"run": data.expand_dims(rate=[0.1, 0.2])})
    assert {"0.1, core", "0.2, whole"} < set(deep["label"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[["loss"]], "run 'run' must have one metric with .* got none of loss"),
        (lambda data: data.assign(again=data["dice"]), "got dice, again of dice, loss, again"),
    ],
)
def test_a_result_without_scores_of_cases_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        result_scores({"run": change(made_up(["ERM"]))})
