"""Tests the choice of trials on numbers made by hand, and the experiment on a made-up table."""

import re

import numpy as np
import pytest
import xarray

import mixjax.data
from experiments.hardness_sampling import group_selection, group_selection_page, group_selection_report
from experiments.hardness_sampling.group_selection import GroupSelection
from experiments.hardness_sampling.group_selection_report import METHODS, RULES, chosen
from mixjax.runner import configs, experiment, results
from tests.experiments.hardness_sampling.cases import fake_table

NUM_SEEDS = 8


def made_up(gains):
    """Trial 0 is best by the worst group's validation, 1 by the average and 2 on the test rows, for every method."""
    base = np.random.default_rng(0).normal(60, 3, NUM_SEEDS)[:, None, None]
    noise = np.random.default_rng(1).normal(0, 0.1, (NUM_SEEDS, 1, len(METHODS)))
    gain = np.array([gains.get(method, 0.0) for method in METHODS])
    # What each trial has on the test rows: the oracle takes the last one.
    test = base + np.array([1.0, -1.0, 4.0])[None, :, None] + gain + noise
    values = {
        "worst_accuracy": test,
        "validation_worst_accuracy": np.broadcast_to(np.array([9.0, 1.0, 5.0])[None, :, None], test.shape),
        "validation_accuracy": np.broadcast_to(np.array([1.0, 9.0, 5.0])[None, :, None], test.shape),
    }
    dims = ("seed", "point", "method")
    coords = {"seed": range(NUM_SEEDS), "method": list(METHODS), "learning_rate": ("point", [0.1, 0.2, 0.3])}
    return xarray.Dataset({name: (dims, array) for name, array in values.items()}, coords)


def test_each_rule_takes_its_own_trial():
    dataset = made_up({})
    for trial, rule in enumerate(RULES):
        np.testing.assert_array_equal(chosen(dataset, rule), dataset["worst_accuracy"].isel(point=trial))
    # Methods and seeds choose for themselves.
    moved = dataset.copy(deep=True)
    moved["validation_worst_accuracy"].loc[{"seed": 3, "method": "kl"}] = [0.0, 0.0, 9.0]
    found = chosen(moved, "worst group")
    assert found.sel({"seed": 3, "method": "kl"}) == dataset["worst_accuracy"].sel({"seed": 3, "method": "kl"})[2]
    assert found.sel({"seed": 3, "method": "erm"}) == dataset["worst_accuracy"].sel({"seed": 3, "method": "erm"})[0]


@pytest.mark.parametrize(
    ("gains", "holds", "words"),
    [
        ({}, True, "0 methods better, 0 worse"),
        ({"chi2": 3.0, "cvar": -3.0}, False, "χ² DRO in the batch, which gains most .*1 methods better, 1 worse"),
        ({"chi2": 0.5}, False, "1 methods better"),
    ],
)
def test_erm_is_hard_to_beat_where_nothing_beats_it(gains, holds, words):
    claims = {claim.name: claim for claim in group_selection_report.claims({"A b": made_up(gains)})}
    assert len(claims) == 4
    for rule in ("worst_group", "average", "oracle"):
        claim = claims[f"a_b_erm_hard_to_beat_{rule}"]
        assert claim.holds is holds and claim.num_seeds == NUM_SEEDS
        assert claim.value == pytest.approx(max([*gains.values(), 0.0]), abs=0.2)
        assert re.search(words, claim.note), claim.note
    # Trial 0 is 2 points above trial 1 in every split.
    assert claims["a_b_groups_to_choose"].value == pytest.approx(2.0)
    assert claims["a_b_groups_to_choose"].holds


def test_splits_too_few_to_see_a_difference_decide_nothing():
    dataset = made_up({})
    noise = np.random.default_rng(2).normal(0, 8, dataset["worst_accuracy"].shape)
    dataset["worst_accuracy"] = dataset["worst_accuracy"] + noise
    claim = group_selection_report.claims({"A": dataset})[0]
    assert claim.holds is None and claim.threshold == group_selection_report.MARGIN


def test_the_table_has_a_verdict_in_each_cell_that_has_one():
    text = group_selection_report.summary({"A": made_up({"kl": 3.0, "hardness": -3.0})})
    row = next(line for line in text.splitlines() if line.startswith("| KL DRO in the batch"))
    assert row.count("**better**") == 3
    assert text.count("**worse**") == 4 and "has 3 trials" in text  # the head names the word once


def test_trials_cover_both_ranges_and_are_the_same_for_all_methods(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    made = group_selection.group_selection(GroupSelection(batch_size=20, num_trials=16, learning_rates=(0.01, 1.0)))
    rates, factors = (np.log10(made.points[name]) for name in ("learning_rate", "factor"))
    assert len(set(rates)) == len(set(factors)) == 16
    for values, low in ((rates, -2.0), (factors, -1.0)):
        # Each quarter of the range has three trials at least.
        counts = np.histogram(values, np.linspace(low, low + 2, 5))[0]
        assert counts.min() >= 3 and counts.sum() == 16
    assert abs(np.corrcoef(rates, factors)[0, 1]) < 0.3


def test_settings_that_cannot_be_meant_are_errors(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    with pytest.raises(ValueError, match="num_trials must be at least 2, got 1"):
        group_selection.group_selection(GroupSelection(num_trials=1))
    with pytest.raises(ValueError, match=r"factors must be two positive numbers in order, got 1\.0 and 0\.5"):
        group_selection.group_selection(GroupSelection(factors=(1.0, 0.5)))


@pytest.mark.slow
def test_the_experiment_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(mixjax.data, "load_table", fake_table)
    config = tmp_path / "small.toml"
    config.write_text(
        'experiment = "experiments.hardness_sampling.group_selection:group_selection"\n'
        "batch_size = 20\nnum_trials = 2\nnum_steps = 5\n[sweep]\nseeds = 3\n"
    )
    out = experiment.run(configs.load(config, []), out=tmp_path / "result")
    data = results.read(out)["run"]
    assert dict(data["worst_accuracy"].sizes) == {"seed": 3, "point": 2, "method": 9}
    assert "chosen by oracle" in (out / "report.md").read_text()
    group_selection_page.main([str(out)], target=tmp_path / "RESULTS.md")
    page = (tmp_path / "RESULTS.md").read_text()
    assert group_selection_report.summary({"run": data}) in page and page.count("| plain ERM with good selection") == 3
    assert (tmp_path / "groups.png").stat().st_size > 10_000
    oracle, others = (chosen(data, rule) for rule in ("oracle", "average"))
    assert (oracle >= others).all()


def test_the_committed_page_has_the_verdicts_of_all_runs():
    page = group_selection_page.PAGE.read_text()
    assert page.startswith(group_selection_page.HEAD)
    assert page.count("| plain ERM with good selection") == 12 and page.count("| ERM, equal group weights |") == 4
    shown = re.findall(r"^\| (ours: .*?) \| (\S+) ± (\S+) \| 0 \| (\w+) \|", page, re.MULTILINE)
    claims = [
        {
            "name": "x_groups_to_choose",
            "statement": statement,
            "value": float(value),
            "stderr": float(stderr),
            "holds": {"yes": True, "no": False, "undecided": None}[holds],
        }
        for statement, value, stderr, holds in shown
    ]
    assert len(claims) == 4 and f"\n\n{group_selection_page.advice(claims)}\n\n" in page
    claims[1]["holds"] = True
    assert "By the worst group on COMPAS, opinions; elsewhere" in group_selection_page.advice(claims)
