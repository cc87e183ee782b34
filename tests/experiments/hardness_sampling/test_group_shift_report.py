"""Tests the claims and the figure on made-up accuracies."""

import numpy as np
import xarray

from experiments.hardness_sampling import group_shift_report
from experiments.hardness_sampling.group_shift_report import METHODS


def made_up_results(value, seeds=3):
    """Each method's worst-group and average accuracy by `value(method)`, the same for every seed but for noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, (seeds, 1))
    levels = np.array([value(method) for method in METHODS]) + noise
    variables = {name: (("seed", "method"), levels) for name in ("accuracy", "worst_accuracy")}
    variables["worst_loss"] = (("seed", "method"), -levels / 100)
    variables["group_accuracy"] = (("seed", "method", "group"), np.stack([levels + 3, levels], axis=2))
    variables["test_rows"] = (("seed", "group"), np.tile([50.0, 40.0], (seeds, 1)))
    coords = {"seed": np.arange(seeds), "method": list(METHODS), "group": ["large", "small"]}
    return {name: xarray.Dataset(variables, coords) for name in ("Adult", "heart disease")}


def test_claims_judge_the_difference_from_erm():
    better = {
        claim.name: claim
        for claim in group_shift_report.claims(made_up_results(lambda m: 70.0 if m == "erm" else 72.0))
    }
    assert all(claim.statement.startswith("ours") for claim in better.values())
    assert better["adult_group_dro_helps"].holds and better["heart_disease_hardness_worst_loss"].holds
    assert better["adult_cvar_price"].holds and better["adult_group_labels_help"].holds is False
    assert "small (40 test rows): 2" in better["adult_kl_helps"].note
    worse = group_shift_report.claims(made_up_results(lambda m: 70.0 if m == "erm" else 68.0))
    assert not any(claim.holds for claim in worse)
    assert {claim.name for claim in worse} == set(better)


def test_a_grid_is_judged_at_its_first_point():
    results = made_up_results(lambda m: 70.0 if m == "erm" else 72.0)
    grid = {
        name: xarray.concat([d, d * 0 + 50.0], "factor").assign_coords(factor=[1.0, 3.0]) for name, d in results.items()
    }
    assert group_shift_report.claims(grid) == group_shift_report.claims(results)
    assert len(group_shift_report.figure(grid).axes) == 2


def test_claims_compare_the_short_run_with_the_long_one():
    (_, long), (_, short) = (
        next(iter(made_up_results(lambda m, g=g: 70.0 + g * (m != "erm")).items())) for g in (1.0, 3.0)
    )
    found = {
        c.name: c for c in group_shift_report.claims({group_shift_report.LONG: long, group_shift_report.SHORT: short})
    }
    claim = found["adult_100_steps_hardness_gains_more"]
    assert claim.holds and round(claim.value, 3) == 2.0


def test_the_figure_shows_every_method_once():
    figure = group_shift_report.figure(made_up_results(lambda m: 70.0 + len(m)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(METHODS.values())
    assert [len(axis.containers) for axis in figure.axes] == [len(METHODS)] * 2
    assert all("%" in axis.get_xlabel() and "%" in axis.get_ylabel() for axis in figure.axes)
