"""Tests the scores by hospital on a made-up table, and the committed page."""

import numpy as np

from experiments.hardness_sampling import hospitals
from mixjax.runner.sites import site_report
from tests.experiments.hardness_sampling.cases import fake_table


def test_each_test_patient_has_a_score_under_each_weighting():
    table = fake_table("compas")
    scores = hospitals.hospital_scores(table, num_seeds=2, num_steps=5)
    num_groups = len(table.group_names)
    # 30 % of 70 rows a group.
    assert len(scores) == 2 * 3 * 21 * num_groups
    assert scores["score"].between(0, 100).all() and not scores.duplicated(["case", "method", "seed"]).any()
    # A case is the row of the table that its site says.
    sites = np.array(table.group_names)[table.groups[scores["case"]]]
    assert (sites == scores["site"]).all()
    # After a few steps from a score of 50, the true diagnosis is more probable.
    levels = site_report(scores, ["volume"]).levels
    assert levels["method"].tolist()[:3] == ["volume", "uniform", "hardness"]
    assert levels[levels["site"] == "all sites"]["mean"].min() > 50


def test_the_committed_page_is_of_the_four_hospitals():
    page = hospitals.PAGE.read_text()
    assert hospitals.HEAD in page and page.count("| uniform | volume |") == 5
    for name in ("Cleveland", "Hungary", "Switzerland", "VA Long Beach", "all sites"):
        assert f"| {name} | uniform | volume |" in page
    assert hospitals.PAGE.with_name("sites.png").stat().st_size < 300_000
