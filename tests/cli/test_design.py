"""Tests ``mixjax design fit`` as a user calls it."""

import json

import pytest

from mixjax import design
from tests.design.synthetic import swarm


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Writes the tables of a swarm into the current folder."""
    monkeypatch.chdir(tmp_path)
    _, mixtures, losses = swarm(3, 2, 30, 0.01, seed=0)
    runs = design.as_swarm(mixtures, losses, domains=["web", "code", "a=b"], metrics=["x|y", "z"])
    design.write_tables(runs, "ratios.csv", "metrics.csv")
    return "ratios.csv", "metrics.csv"


def test_fits_proposes_and_writes(command, tables, tmp_path):
    (tmp_path / "sizes.json").write_text('{"web": 900, "code": 90, "a=b": 10}')
    options = ("--max-share", "web=0.5", "--max-share", "a=b=0.6", "--prior", "sizes.json", "--resamples", "50")
    code, out, err = command("design", "fit", *tables, "--out", "found", *options)
    assert code == 0, err
    assert "better than the proportional mixture by the interval" in out and "report: found/report.md" in out
    mixture = json.loads((tmp_path / "found/mixture.json").read_text())
    assert list(mixture) == ["weights", "value", "low", "high"] and list(mixture["weights"]) == ["web", "code", "a=b"]
    assert sum(mixture["weights"].values()) == pytest.approx(1.0) and mixture["low"] <= mixture["value"]
    assert mixture["weights"]["web"] <= 0.5 + 1e-9 and mixture["weights"]["a=b"] <= 0.6 + 1e-9
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {"mixture.json", "report.md", "figure.png", "predictions.csv", "region.csv", "scores.csv"}
    report = (tmp_path / "found/report.md").read_text()
    assert "predicts left-out runs best" in report and "30 runs of 30 mixtures of 3 domains" in report
    assert (tmp_path / "found/predictions.csv").read_text().count("\n") == 61


def test_a_named_law_and_objective(command, tables):
    code, out, _ = command("design", "fit", *tables, "--law", "quadratic", "--objective", "z", "--resamples", "20")
    assert code == 0 and "by quadratic" in out and out.splitlines()[3].startswith("z: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--law", "cubic"), "law must be one of 'auto', 'log_linear'"),
        (("--objective", "w"), "objective names 'w', which is no metric; known: x|y, z, mean, worst"),
        (("--max-share", "wb=0.5"), "max_share names 'wb', which is no domain; did you mean 'web'?"),
        (("--max-share", "web"), "--max-share web: write SHARE or DOMAIN=SHARE, for example 0.5 or web=0.5"),
        (("--max-share", "0.5", "--max-share", "web=0.4"), "--max-share 0.5: with several of them, write DOMAIN=SHARE"),
        (("--max-share", "0.2"), "max_share must leave room for shares that sum to 1, got a sum of 0.6"),
        (("--prior", "sizes.json"), "sizes.json: has no size of the domain 'a=b'"),
        (("--prior", "list.json"), "list.json: must be JSON of the form {domain: size}"),
        (("--prior", "none.json"), "none.json"),
        (("--resamples", "2"), "resamples must be an integer of at least 20, got 2"),
        (("--out", "gs://bucket"), "--out: takes a path of the local file system"),
    ],
)
def test_a_mistake_is_one_line(command, tables, tmp_path, options, message):
    (tmp_path / "sizes.json").write_text('{"web": 1, "code": 2}')
    (tmp_path / "list.json").write_text("[1, 2]")
    code, out, err = command("design", "fit", *tables, "--law", "log_linear", *options)
    assert code == 2 and not out and len(err.strip().splitlines()) == 1 and message in err


def test_a_bad_table_is_one_line(command, tables, tmp_path):
    text = (tmp_path / "ratios.csv").read_text()
    (tmp_path / "ratios.csv").write_text(text.replace("run_3,run_3,3,", "run_3,run_3,3,1"))
    code, _, err = command("design", "fit", *tables)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "ratios.csv, line 5 (run run_3)" in err
    assert command("design", "fit", "none.csv", "metrics.csv")[0] == 2
