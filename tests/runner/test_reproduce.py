"""The command that a report gives to reproduce it runs from the folder that the report names, and gives the same."""

import os
import re
import shlex
import sys

import pytest

from mixjax import cli
from mixjax.runner import results
from tests.cli.toy import MODULE


def run(*argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(argv))
    assert not exit_.value.code


@pytest.mark.parametrize(
    ("where", "argv"),
    [
        (".", ["run", "configs/toy.toml"]),
        (
            ".",
            ["run", "configs/toy.toml", "--set", "sweep.seeds=3", "--set", "sweep.shift=[0.0, 0.5]", "--out", "a b/c"],
        ),
        ("elsewhere", ["run", "../configs/toy.toml", "--set", "shift=2"]),
        ("elsewhere/deep", ["run", "../../configs/toy.toml", "--out", "../../out"]),
        (".", ["sweep", "configs/toy.toml", "--vary", "shift=log:0.1:1:2", "--seeds", "2"]),
    ],
)
def test_the_command_of_a_report_reproduces_it(tmp_path, monkeypatch, where, argv):
    module = f"mod_{tmp_path.name}"
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/toy.toml").write_text(f'experiment = "{module}:toy"\n[sweep]\nseeds = 2\n')
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / where)
    run(*argv)
    (report,) = tmp_path.rglob("report.md")
    folder = report.parent
    before = results.read(folder)["run"]
    text = report.read_text()
    named = re.search(r"to reproduce, in `(.*)`:", text)
    line = re.search(r"^mixjax .*$", text, flags=re.MULTILINE)
    assert named and line
    os.rename(folder, tmp_path / "moved")
    monkeypatch.chdir(named[1])
    run(*shlex.split(line[0])[1:])
    assert results.read(folder)["run"].equals(before)
