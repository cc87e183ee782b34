"""Runs the project of the guide to own experiments, in a folder that knows nothing of mixjax's repository."""

import re
import sys
from pathlib import Path

import pytest

from mixjax import cli
from mixjax.runner import results

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "your_experiment.md"
SWEEPS = PAGE.with_name("sweeps.md")


def part(mark, page=PAGE):
    return re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL).group(1)


def run_all(commands, module, capsys):
    """Runs the commands of a page one after the other, and forgets the module that they import."""
    try:
        for command in commands.splitlines():
            with pytest.raises(SystemExit) as ended:
                cli.main(command.split()[1:])
            assert not ended.value.code, capsys.readouterr().err
    finally:
        sys.modules.pop(module, None)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_a_folder_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "noisy_domains.py").write_text(part("module"))
    (tmp_path / "noisy_domains.toml").write_text(part("config"))
    commands = re.search(r"Then, in that folder:\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    assert len(commands.splitlines()) == 3
    run_all(commands, "noisy_domains", capsys)
    (run,) = results.read("results/noisy_domains").values()
    assert run.error.sizes == {"seed": 20, "method": 2, "step": 100}
    assert "erma_helps" in Path("results/noisy_domains/report.md").read_text()
    assert "yes" in capsys.readouterr().out


@pytest.mark.slow
def test_methods_with_settings_of_their_own_are_compared_once_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("own_settings.py", "own_settings.toml"):
        (tmp_path / name).write_text(part(re.escape(name), SWEEPS))
    commands = re.search(r"```sh\n(mixjax run own_settings.toml\n.*?)```", SWEEPS.read_text(), re.DOTALL).group(1)
    run_all(commands, "own_settings", capsys)
    out = capsys.readouterr().out
    assert "number of tests in the table, 2" in out and "plain: step_size = 0.0, gamma1 = 0.0" in out
