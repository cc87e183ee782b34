"""Runs the guide to scores by site, sites.md, and holds its table to what its code gives."""

import re

import pytest

from experiments.guides import site_example
from mixjax import cli


def test_the_table_is_that_of_the_code_and_the_command_writes_it(tmp_path, monkeypatch, capsys):
    page = site_example.PAGE.read_text()
    report = site_example.example_report()
    assert site_example.table(report) in page and site_example.FIGURE.stat().st_size < 200_000
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"<!-- scores -->\n```python\n(.*?)```", page, re.DOTALL).group(1), {})
    with pytest.raises(SystemExit):
        cli.main(re.search(r"```sh\nmixjax (.*?)\n```", page, re.DOTALL).group(1).split())
    assert site_example.table(report) in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "results" / "sites").iterdir()} == {
        "report.md", "figure.png", "levels.csv", "differences.csv",
    }  # fmt: skip
