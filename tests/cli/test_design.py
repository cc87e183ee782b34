"""Tests ``mixjax design swarm``, ``fit`` and ``validate`` as a user calls them."""

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
    assert names == {
        "mixture.json", "report.md", "figure.png", "predictions.csv", "region.csv", "scores.csv", "candidates.csv"
    }  # fmt: skip
    candidates = (tmp_path / "found/candidates.csv").read_text().splitlines()
    assert candidates[0] == "run,name,index,web,code,a=b"
    assert [line.partition(",")[0] for line in candidates[1:4]] == ["proposal", "swarm_best", "uniform"]
    report = (tmp_path / "found/report.md").read_text()
    assert "predicts left-out runs best" in report and "30 runs of 30 mixtures of 3 domains" in report
    assert (tmp_path / "found/predictions.csv").read_text().count("\n") == 61


def test_a_named_law_and_objective(command, tables):
    code, out, _ = command("design", "fit", *tables, "--law", "quadratic", "--objective", "z", "--resamples", "20")
    assert code == 0 and "by quadratic" in out and out.splitlines()[3].startswith("z: ")


def test_proposes_for_a_budget_beyond_those_of_the_runs(command, tables, tmp_path):
    text = (tmp_path / "metrics.csv").read_text().splitlines()
    rows = [line + f",{tokens}" for line, tokens in zip(text, ["tokens", *[1e6, 4e6] * 15], strict=True)]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    options = ("--law", "log_linear", "--resamples", "20", "--budget-column", "tokens", "--out", "found")
    code, _, err = command("design", "fit", *tables, *options)
    assert code == 2 and "the runs differ in 'tokens': give --budget" in err
    code, _, err = command("design", "fit", *tables, *options, "--budget", "1e7")
    assert code == 0, err
    assert json.loads((tmp_path / "found/mixture.json").read_text())["budget"] == 1e7
    assert "For a run of 1e+07 tokens, 2.5 times the largest of the runs" in (tmp_path / "found/report.md").read_text()


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
        (("--budget", "1e9"), "--budget 1e+09: needs a column 'budget' with the tokens of runs that differ"),
        (("--budget-column", "tokens"), "neither has the column 'tokens'; one of them must have it"),
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


def test_draws_a_swarm_that_fit_reads(command, tables, tmp_path):
    (tmp_path / "sizes.json").write_text('{"web": 900, "code": 90, "a=b": 10}')
    options = ("--num", "20", "--repeats", "2", "--max-share", "web=0.5", "--floor", "0.01", "--kind", "sobol")
    code, out, err = command("design", "swarm", "sizes.json", "--out", "drawn.csv", *options)
    assert code == 0 and out == "40 runs: drawn.csv\n", err
    lines = (tmp_path / "drawn.csv").read_text().splitlines()
    assert lines[0] == "run,name,index,web,code,a=b" and len(lines) == 41
    shares = [[float(cell) for cell in line.split(",")[3:]] for line in lines[1:]]
    assert max(row[0] for row in shares) <= 0.5 and max(row[1] for row in shares) > 0.5
    losses = [f"run_{i},{row[0] + i % 3}" for i, row in enumerate(shares)]
    (tmp_path / "losses.csv").write_text("\n".join(["run,loss", *losses]))
    assert command("design", "fit", "drawn.csv", "losses.csv", "--law", "log_linear", "--resamples", "20")[0] == 0


def test_judges_a_proposal(command, tables, tmp_path):
    rows = [
        f"{name},{seed},{base + 0.01 * (seed % 3)},{7 - base}"
        for name, base in (("uniform", 1.5), ("proposal", 1.0), ("same", 1.0))
        for seed in range(100, 108)
    ]
    (tmp_path / "losses.csv").write_text("mixture,seed,x|y,z\n" + "\n".join(rows))
    options = ("--used-seeds", "0:100", "--used-seeds", "200", "--out", "found/verdicts.csv")
    code, out, err = command("design", "validate", "losses.csv", "--objective", "x|y", *options)
    assert code == 0, err
    assert "proposal is better than uniform: 0.5 lower (0.5 to 0.5), the same in all of 8 seeds" in out
    assert "proposal is not better than noise against same: 0 lower" in out and "found/verdicts.csv" in out
    table = (tmp_path / "found/verdicts.csv").read_text().splitlines()
    assert table[0].startswith("name,outcome,gain,low,high,p_value,") and table[1].startswith("uniform,better,0.5,")
    assert "worse than uniform" in command("design", "validate", "losses.csv", "--objective", "z")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swarm", "list.json"), "list.json: must be JSON of the form {domain: size}"),
        (("swarm", "none.json"), "none.json"),
        (("swarm", "sizes.json", "--kind", "grid"), "kind must be one of 'dirichlet', 'sobol'"),
        (("swarm", "sizes.json", "--num", "0"), "num must be an integer of at least 1, got 0"),
        (("swarm", "sizes.json", "--max-share", "wb=0.5"), "max_share names 'wb', which is no domain; did you mean"),
        (("validate", "none.csv"), "none.csv"),
        (("validate", "losses.csv", "--proposal", "unifrm"), "got 'unifrm'; did you mean 'uniform'?"),
        (("validate", "losses.csv", "--objective", "w"), "objective names 'w', which is no metric"),
        (("validate", "losses.csv", "--used-seeds", "0:9"), "seeds must be fresh, but the swarm has used 7, 8"),
        (("validate", "losses.csv", "--used-seeds", "a"), "--used-seeds a: write SEED or FIRST:STOP"),
        (("validate", "losses.csv", "--out", "gs://bucket"), "--out: takes a path of the local file system"),
        (("validate", "ratios.csv"), "ratios.csv: the column 'mixture' is missing"),
    ],
)
def test_mistakes_of_swarm_and_validate_are_one_line(command, tables, tmp_path, arguments, message):
    (tmp_path / "sizes.json").write_text('{"web": 1, "code": 2}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "losses.csv").write_text("mixture,seed,x\nproposal,7,1\nproposal,8,1\nuniform,7,2\nuniform,8,2\n")
    code, out, err = command("design", *arguments)
    assert code == 2 and not out and len(err.strip().splitlines()) == 1 and message in err
