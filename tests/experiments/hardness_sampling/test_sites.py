import numpy as np
import xarray

from experiments.hardness_sampling import sites
from mixjax.runner import results
from mixjax.runner.sites import read_scores, site_report


def made_up(methods):
    """Two seeds, three test cases at two centres, two regions; every score is another number."""
    dims = ("seed", "method", "case", "region")
    dice = np.arange(2.0 * len(methods) * 3 * 2).reshape(2, len(methods), 3, 2)
    coords = {"seed": [7, 8], "method": methods, "case": ["A", "A", "B"], "region": ["core", "whole"]}
    return xarray.Dataset({"dice": (dims, dice)}, coords=coords)


def test_each_test_case_of_each_seed_is_a_case(tmp_path, monkeypatch):
    data = made_up(["ERM", "DRO"])
    monkeypatch.setattr(results, "read", lambda folder: {"run": data})
    sites.main(["anywhere", str(tmp_path / "scores.csv")])
    report = site_report(read_scores(tmp_path / "scores.csv"), ["ERM"])
    dice = data["dice"].sel({"method": "ERM", "region": "core"})
    level = report.levels.query("site == 'A' and label == 'core' and method == 'ERM'").iloc[0]
    assert level["cases"] == 4 and level["mean"] == dice.isel(case=[0, 1]).mean()
    assert level["worst"].startswith("0 of seed 7 (0.0)")
    differences = report.differences.query("site == 'B' and label == 'whole'").iloc[0]
    assert (differences["cases"], differences["difference"]) == (2, 6.0)


def test_methods_of_several_runs_keep_apart():
    table = sites.site_scores({"SGD": made_up(["ERM"]), "Nesterov": made_up(["ERM", "DRO"])})
    assert list(dict.fromkeys(table["method"])) == ["SGD, ERM", "Nesterov, ERM", "Nesterov, DRO"]
    assert len(table) == 2 * 3 * 2 * 3
