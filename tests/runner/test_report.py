"""The report: claims, runs that diverged, times, and how to reproduce it."""

import numpy as np

from mixjax.runner.report import path_in_project
from tests.runner.written import ROW, dataset, write


def test_report_of_a_run_that_went_on(config):
    half = dataset()
    half.attrs["num_computed"] = 3
    text = (write(config, {"run": half}) / "report.md").read_text()
    assert "6 runs, of which 3 by this process, in 3 s, 1e+03 ms each" in text


def test_a_report_of_one_run_says_so_in_the_singular(config):
    one = dataset()
    one.attrs |= {"num_runs": 1, "num_computed": 1}
    path = write(config, {"run": one})
    assert "\n1 run, in 3 s, 3e+03 ms each" in (path / "report.md").read_text()
    page = (path / "report.html").read_text()
    assert "<b>1</b> run</li>" in page and "<p>1 run, in 3 s" in page


def test_report(config):
    bad = dataset()
    bad.error[0, 1, 1, 2] = np.nan  # two steps of one run count once
    bad.error[0, 1, 1, 3] = np.inf
    bad.error[1, 0, 1, 0] = np.nan
    undecided = ROW | {"name": "erma", "holds": None, "value": None, "stderr": None, "note": "tried\ntwice"}
    lost = ROW | {"name": "va", "holds": False}
    path = write(config, {"good": dataset(), "bad": bad}, claims=[ROW, undecided, lost])
    text = (path / "report.md").read_text()
    assert text.startswith("# toy\n") and "mixjax run toy.toml --set steps=2" in text
    assert "| fgls | yes | 0.5 ± 0.12 | 0 | 3 | FGLS \\| wins (paper 000, section 5.1) |  |" in text
    assert "| erma | undecided |  | 0 | 3 | FGLS \\| wins (paper 000, section 5.1) | tried twice |" in text
    assert "| va | no |" in text
    assert "| bad | error | erma | 2 of 6 |" in text and "| good |" not in text
    assert "![toy](figure.png)" in text and "12 runs, in 6 s, 500 ms each, after 3 s of compilation" in text
    assert "cpu" in text and "jax " in text


def test_a_summary_comes_before_the_claims(config):
    text = (write(config, {"x": dataset()}, claims=[ROW], summary="| all | of it |\n") / "report.md").read_text()
    assert "## Summary\n\n| all | of it |\n\n## Claims\n" in text


def test_report_without_anything(config):
    path = write(config, {"x": dataset()}, claims=[], figure=None, failures={"figure": "Traceback: boom"})
    text = (path / "report.md").read_text()
    assert "**The figure failed**" in text and "boom" in text and "figure.png" not in text
    assert text.count("None.") == 2 and "Summary" not in text and not (path / "figure.png").exists()


def test_the_command_names_the_folder_where_it_is_not_the_default(config, tmp_path):
    assert "--out" not in (write(config, {"x": dataset()}, out="results/toy") / "report.md").read_text()
    assert (
        "\nmixjax run toy.toml --set steps=2 --out deep/er\n"
        in (write(config, {"x": dataset()}, out="deep/er") / "report.md").read_text()
    )


def test_a_path_is_shown_from_the_root_of_its_project(config, tmp_path):
    assert path_in_project(config) == "toy.toml"
    (tmp_path.parent / "pyproject.toml").write_text("")
    try:
        assert path_in_project(config) == f"{tmp_path.name}/toy.toml"
    finally:
        (tmp_path.parent / "pyproject.toml").unlink()
