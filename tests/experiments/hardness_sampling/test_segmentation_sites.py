"""Tests the page of the simulated centres on made-up results, and the committed page."""

import numpy as np
import xarray

from experiments.hardness_sampling import segmentation_sites
from experiments.hardness_sampling.segmentation_report import NESTEROV
from mixjax.runner import results
from mixjax.runner.sites import site_report


def made_up(gains):
    """Two splits of a pool of ten cases a centre, of which each tests six; ``gains`` are those of each weighting."""
    rng, pool = np.random.default_rng(0), np.arange(20).reshape(2, 10)
    numbers = np.stack([np.concatenate([rng.permutation(cases)[:6] for cases in pool]) for _ in range(2)])
    regions = ["whole", "core"]
    gain = np.array([[[gains.get((weighting, site), 0.0)] * 6 for site in "AB"] for weighting in ("v", "u", "h")])
    base = numbers[:, None, :] + gain.reshape(1, 3, 12) + rng.normal(0, 0.01, (2, 3, 12))
    dice = np.stack([base, 50 + 0 * base], axis=-1)
    coords = {"seed": [5, 6], "method": list(segmentation_sites.WEIGHTINGS), "case": [*"AAAAAABBBBBB"]}
    dims = ("seed", "method", "case", "region")
    values = {"dice": (dims, dice), "case_number": (("seed", "case"), numbers)}
    values["centre_share"] = (("seed", "epoch", "method"), np.tile([0.06, 0.25, 0.1], (2, 4, 1)))
    return {NESTEROV: xarray.Dataset(values, {**coords, "region": regions})}


def test_a_case_that_both_splits_tested_counts_once_and_the_reading_names_who_gains_and_loses(tmp_path, monkeypatch):
    made = made_up({("u", "A"): 2.0, ("u", "B"): -3.0})
    scores = segmentation_sites.scores_of(made)
    report = site_report(scores, ["volume", "uniform"])
    numbers = made[NESTEROV]["case_number"].values
    tested = {"A": set(numbers[:, :6].ravel()), "B": set(numbers[:, 6:].ravel())}
    levels = report.levels[report.levels["label"] == "whole"].set_index(["site", "method"])
    for site, cases in tested.items():
        assert levels.loc[(site, "volume"), "cases"] == len(cases) < 12
    lines = segmentation_sites.reading(report).splitlines()
    assert (
        lines[0] == "- **uniform** in place of volume, of 4 comparisons: better for whole at A; worse for whole at B."
    )
    monkeypatch.setattr(results, "read", lambda folder: made)
    segmentation_sites.main(["result"], target=tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "2 random splits" in page and "6 % (volume), 25 % (uniform) and 10 % (hardness) of the draws" in page
    assert (tmp_path / segmentation_sites.FIGURE).stat().st_size > 20_000


def test_without_a_difference_the_reading_says_so():
    report = site_report(segmentation_sites.scores_of(made_up({})), ["volume"])
    differences = report.differences.assign(verdict="no difference seen")
    assert segmentation_sites.reading(report._replace(differences=differences)).count("no difference seen") == 2


def test_the_committed_page_is_of_the_simulation():
    page = segmentation_sites.PAGE.read_text()
    assert page.startswith("# Four simulated centres\n\nA SIMULATION") and "| low field | uniform | volume |" in page
    assert page.count("| uniform | volume |") == 3 * 5
    assert segmentation_sites.PAGE.with_name(segmentation_sites.FIGURE).stat().st_size < 300_000
