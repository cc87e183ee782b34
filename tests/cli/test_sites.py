"""``mixjax sites`` on a table of scores, and on tables and options that cannot be meant."""

import numpy as np
import pandas as pd
import pytest
import xarray

from mixjax.runner import results

ROWS = "site,case,method,score\n" + "".join(
    f"{site},{case},{method},{base + case + gain}\n"
    for site, base, gain_at_site in (("A", 80, 1), ("B", 40, 9))
    for method, gain in (("volume", 0), ("hard", gain_at_site))
    for case in range(6)
)


@pytest.fixture
def scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.csv").write_text(ROWS)
    return tmp_path


def test_help_teaches(command):
    assert "mixjax sites scores.csv --baseline volume" in command("sites", "--help")[1]


def test_the_report_is_shown_and_written(command, scores):
    code, out, err = command("sites", "scores.csv", "--baseline", "volume", "--out", "told", "--worst", 1)
    assert (code, err) == (0, "")
    assert "| B | hard | volume | 6 | +9.0 (+9.0 to +9.0) | better |" in out
    assert "| A | volume | 6 | 82.5 | 82.5 (81.2 to 83.8) | 2.5 | 0 (80.0) |" in out
    assert out.endswith("report: told/report.md\n")
    assert (scores / "told" / "report.md").read_text().startswith(out.partition("report: ")[0].rstrip())
    assert pd.read_csv(scores / "told" / "differences.csv")["difference"].tolist() == [1.0, 9.0, 5.0]
    assert len(pd.read_csv(scores / "told" / "levels.csv")) == 6
    assert (scores / "told" / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.csv"], "none.csv"),
        (
            ["scores.csv", "--baseline", "uniform"],
            "baseline must be one of the methods ['volume', 'hard'], got 'uniform'",
        ),
        (["scores.csv", "--better", "large"], "better must be"),
        (["scores.csv", "--worst", "0"], "num_worst must be an integer of at least 1, got 0"),
        (["scores.csv", "--out", "gs://bucket/x"], "takes a path of the local file system"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(command, scores, options, message):
    code, out, err = command("sites", *options)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert [file.name for file in scores.iterdir()] == ["scores.csv"]


def test_a_result_of_mixjax_run_is_read_and_one_without_cases_is_told(command, scores, monkeypatch):
    dims, names = ("seed", "method", "case", "region"), ["ERM", "DRO"]
    dice = np.arange(2.0 * 2 * 12).reshape(2, 2, 6, 2)
    coords = {"seed": [0, 1], "method": names, "case": ["A"] * 3 + ["B"] * 3, "region": ["core", "whole"]}
    monkeypatch.setattr(results, "read", lambda path: {"run": xarray.Dataset({"dice": (dims, dice)}, coords=coords)})
    (scores / "segmentation").mkdir()
    code, out, err = command("sites", "segmentation", "--baseline", "ERM")
    assert (code, err) == (0, "") and "| B | DRO | ERM | 6 | +12.0 (+12.0 to +12.0) | better |" in out
    assert "## whole" in out
    monkeypatch.undo()
    code, out, err = command("sites", "segmentation", "--baseline", "ERM")
    assert (code, out) == (2, "") and err.count("\n") == 1
