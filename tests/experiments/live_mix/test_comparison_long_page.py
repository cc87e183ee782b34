"""Tests the section on longer runs of the mixing methods: its differences, its verdicts and the order of methods."""

import numpy as np
import pytest

from experiments.live_mix import comparison_long_page
from experiments.live_mix.comparison_long_page import order_kept, section
from mixjax.runner import configs
from tests.experiments.live_mix.fake_comparison import EFFECTS, STEPS, results


def reversed_effects():
    """Returns effects by which what was good is bad."""
    return {name: (tuple(-effect for effect in domains), -target) for name, (domains, target) in EFFECTS.items()}


@pytest.fixture(scope="module")
def short():
    return results(timed=())


def test_an_order_that_holds_and_one_that_turns_around(short):
    again = order_kept(short, results(timed=(), noise=0.02), "mean")
    turned = order_kept(short, results(timed=(), effects=reversed_effects()), "mean")
    assert again[0] > 0.9 and again[1] <= again[0] <= again[2] <= 1.0
    assert turned[0] < -0.9 and turned[2] < 0


def test_only_methods_of_both_lengths_are_compared(short):
    long = {name: data for name, data in short.items() if name not in ("aioli", "ado")}
    assert order_kept(short, long, "mean")[0] == pytest.approx(1.0)
    text = section(short, long)
    assert "| ODM |" in text and "| Aioli |" not in text


def test_the_table_has_differences_at_both_lengths_and_is_sorted_by_the_longer_one(short):
    turned = results(timed=(), effects=reversed_effects())
    rows = [line.strip("| ").split(" | ") for line in section(short, turned).splitlines() if line.count(" | ") == 6]
    found = {row[0]: row[1:] for row in rows if "±" in row[1]}
    assert set(found) == {comparison_long_page.NAMES[name] for name in EFFECTS if name != "uniform"}
    assert found["ODM"][0].startswith("**-0.4") and found["ODM"][0].endswith("better")
    assert found["ODM"][1].startswith("**+0.") and found["ODM"][1].endswith("worse")
    longer = [float(row[1].strip("*").split(" ")[0]) for row in found.values()]
    assert longer == sorted(longer)
    assert f"{int(STEPS[-1]):,} steps" in section(short, turned)


def test_the_command_writes_the_section_and_keeps_the_page(short, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_long_page.results_lib, "read", lambda folder: short)
    (tmp_path / "RESULTS.md").write_text("# The live mix\n\nwritten by hand\n")
    for _ in range(2):
        comparison_long_page.main(["short", "long", "--out", str(tmp_path)])
    page = (tmp_path / "RESULTS.md").read_text()
    assert "written by hand" in page and page.count("## Mixing methods in longer runs") == 1


def test_the_longer_config_differs_in_length_alone():
    folder = comparison_long_page.FOLDER.parents[1] / "configs" / "live_mix"
    short, long = (configs.load(folder / f"{name}.toml") for name in ("comparison", "comparison_long"))
    values = {run.name: vars(run.values) for run in short.runs if not run.name.endswith("_time")}
    longer = {run.name: vars(run.values) for run in long.runs}
    assert list(values) == list(longer) and short.sweep == long.sweep
    for name, own in values.items():
        changed = {key for key in own if own[key] != longer[name][key]}
        assert changed == {"num_steps", "full_steps"}, name
        assert np.isclose(longer[name]["num_steps"], 4 * own["num_steps"])
