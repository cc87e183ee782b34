"""Commands as functions, a project with one experiment, and results written by hand."""

import sys

import pytest

from mixjax import cli
from mixjax.runner import results
from mixjax.runner.configs import load
from tests.cli.toy import MODULE
from tests.cli.written import CLAIM, CONFIG


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one experiment, as the current folder."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "configs" / "paper").mkdir(parents=True)
    config = f'# A toy of normal draws.\nexperiment = "{module}:toy"\n[sweep]\nseeds = 4\n'
    (tmp_path / "configs" / "paper" / "toy.toml").write_text(config)
    return tmp_path


@pytest.fixture
def mixjax_command(project, command):
    """Runs a command of ``mixjax`` in the project; returns the exit code and what it wrote."""
    return command


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a result folder under the current folder: write(name, runs, --set texts, claims)."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Toy:\n    steps: int = 1\n    width: int = 1\n"
        "def toy(config: Toy): ...\n"
    )

    def call(name, runs, overrides=(), claims=(CLAIM,)):
        (tmp_path / "toy.toml").write_text(CONFIG.format(module=module))
        config = load(tmp_path / "toy.toml", overrides)
        runs = runs if isinstance(runs, dict) else {"run": runs}
        return results.write(name, config, runs, figure=None, claims=list(claims))

    return call


@pytest.fixture
def command(capsys):
    def call(*argv):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


@pytest.fixture
def compared(command):
    """Compares, and gives the title, the line below it, the table's rows as lists of cells, and the notes."""

    def call(*argv):
        code, out, err = command("compare", *argv)
        assert (code, err) == (0, "")
        head, table, notes = out.split("\n\n")
        title, _, where = head.partition("\n")
        rows = [[cell for cell in line.split("  ") if cell] for line in table.splitlines()]
        return title, where, [[cell.strip() for cell in row] for row in rows], notes

    return call
