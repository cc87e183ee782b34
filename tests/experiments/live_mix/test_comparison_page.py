"""Tests the page of the comparison of mixing methods: its numbers and sentences follow from the results."""

import dataclasses
import json
import re

import numpy as np
import pytest
import xarray

from experiments.live_mix import comparison_page
from experiments.live_mix.comparison_tables import NAMES, compared, speed_up
from experiments.live_mix.methods import METHODS, Settings
from tests.experiments.live_mix.fake_comparison import EFFECTS, results

CONFIG = {
    "experiment": "x:y",
    "width": 64,
    "floor": 0.125,
    "run": [{"name": "erma", "method": "erma", "gamma1": 0.25, "step_size": 7.0}, {"name": "odm", "step_size": 7.0}],
}


@pytest.fixture(scope="module")
def page():
    return comparison_page.section(results(noise=0.02), CONFIG, {"ado": [1.002, 1.001, 1.003]})


def test_the_table_has_the_differences_and_verdicts(page):
    found = results(noise=0.02)
    table = compared(found, "uniform")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.count(" | ") == 7}
    for name in set(EFFECTS) - {"uniform"}:
        (line,) = [text for head, text in lines.items() if head == NAMES[name] and "±" in text]
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")][1:]
        want = float(speed_up(found[name], found["uniform"]).mean())
        assert float(cells.pop().partition(" ")[0]) == pytest.approx(want, abs=0.01)
        places = [(cost, measure) for cost in ("steps", "time") for measure in ("mean", "worst", "target")]
        for cell, (cost, measure) in zip(cells, places, strict=True):
            (row,) = table[(table.method == name) & (table.cost == cost) & (table.measure == measure)].itertuples()
            assert float(re.search(r"[-+][\d.]+", cell)[0]) == pytest.approx(row.difference, abs=0.002)
            assert cell.endswith(row.verdict) == (row.verdict != "undecided") == cell.startswith("**")


def test_settings_costs_and_sources_are_there(page):
    assert "gamma1 0.25, floor 0.125 |" in page and "1.002 (1.001 to 1.003)" in page and "width 64." in page
    # A method's row has the settings that it reads, and no others that the config has.
    assert "step_size 7" not in page
    assert "arXiv:2411.05735" in page and "](comparison.png)" in page


def test_the_conclusion_is_chosen_by_the_verdicts(page):
    assert "ADO have a lower mean loss than the uniform mix" in page
    none = comparison_page.section(
        results(effects={name: EFFECTS["uniform"] for name in EFFECTS}, timed=()), CONFIG, {}
    )
    assert "No method has a lower mean loss" in none
    assert none.count("nothing is decided for any of") == 12
    one = results(noise=1e-3, effects={"uniform": EFFECTS["uniform"], "erma": ((-0.1,) * 4, -0.1)}, timed=())
    assert "ERMA has a lower mean loss than the uniform mix" in comparison_page.section(one, CONFIG, {})
    bad = results(noise=1e-3, effects={"uniform": EFFECTS["uniform"], "erma": ((-0.1,) * 4, 0.1)}, timed=())
    assert "No method has a lower mean loss" in comparison_page.section(bad, CONFIG, {})


def test_diverged_seeds_are_said():
    found = results(names=["uniform", "erma", "va"], timed=())
    found["va"]["loss"][0, -1] = np.nan
    found["erma"]["loss"][:, -1] = np.nan
    text = comparison_page.section(found, CONFIG, {})
    assert "(1 seeds diverged)" in text and "| ERMA | diverged | diverged |" in text


def test_the_command_writes_the_page_and_the_figure_and_leaves_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(
        comparison_page.results_lib,
        "read",
        lambda path: results(seeds=3, noise=1e-4, timed=(), names=["uniform", "erma"]),
    )
    monkeypatch.setattr(comparison_page.results_lib, "read_config", lambda path: CONFIG)
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps({"data": {"over_uniform": {"erma": [1.1, 1.2, 1.3]}}}))
    (tmp_path / "RESULTS.md").write_text("# The live mix\n\nOther text.\n")
    guide = tmp_path / "guide.md"
    guide.write_text("# Choosing\n\n<!-- comparison: generated -->\n\nold\n\n<!-- end of comparison -->\n\nrest\n")
    arguments = ["results", "--guide", str(guide), "--out", str(tmp_path), "--costs", str(costs), "--tuning", "tuning"]
    for _ in range(2):
        comparison_page.main(arguments)
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("# The live mix\n\nOther text.\n\n<!-- comparison: generated -->")
    assert text.count("## Mixing methods at equal cost") == 1 and "1.200 (1.100 to 1.300)" in text
    assert "of 3 other seeds (1000 to 1002), from 1 a method" in text and "### What was tried" in text
    assert "old" not in guide.read_text() and guide.read_text().endswith("\n\nrest\n")
    assert "- worst training domain: ERMA is better." in guide.read_text()
    assert (tmp_path / "comparison.png").stat().st_size < 300_000


def test_settings_of_methods_are_those_of_the_experiment():
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert set(comparison_page.READ) == set(METHODS) - {"uniform", "proportional"}
    assert {name for names in comparison_page.READ.values() for name in names} == fields


def test_rounds_of_tuning_keep_all_that_was_tried_once():
    def run(*values):
        losses = np.array(values)[:, None, None] * np.ones((1, 2, 3))
        return xarray.Dataset({"validation_loss": (("point", "seed", "domain"), losses)}, {"seed": [0, 1]})

    first = {"erma": run(1.0, 2.0), "odm": run(3.0, 4.0)}
    found = comparison_page.joined([first, {"erma": run(5.0, 6.0), "odm": run(3.0, 4.0)}])
    assert list(found) == ["erma (round 1)", "erma", "odm"]
    assert found["erma"].validation_loss.values.min() == 5.0
    assert comparison_page.joined([]) == {}


def test_steps_that_another_measurement_has_set_are_told():
    found = results(noise=0.02)  # runs at equal time have half of the steps
    assert "set by an earlier" not in comparison_page.section(found, CONFIG, {"erma": [2.0, 1.9, 2.1]})
    text = comparison_page.section(found, CONFIG, {"erma": [1.6, 1.5, 1.7], "doge": [2.2], "ado": [0.9]})
    assert "they are between 25% fewer and 9% more than these costs allow." in text
