"""Runs the project of the guide to own experiments, in a folder that knows nothing of mixjax's repository."""

import re
import sys
from pathlib import Path

import pytest

from mixjax import cli
from mixjax.runner import results

PAGE = Path(__file__).parents[3] / "experiments" / "guides" / "your_experiment.md"


def part(mark):
    return re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_a_folder_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "noisy_domains.py").write_text(part("module"))
    (tmp_path / "noisy_domains.toml").write_text(part("config"))
    commands = re.search(r"Then, in that folder:\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    assert len(commands.splitlines()) == 3
    try:
        for command in commands.splitlines():
            with pytest.raises(SystemExit) as ended:
                cli.main(command.split()[1:])
            assert not ended.value.code, capsys.readouterr().err
    finally:
        sys.modules.pop("noisy_domains", None)
    (run,) = results.read("results/noisy_domains").values()
    assert run.error.sizes == {"seed": 20, "method": 2, "step": 100}
    assert "erma_helps" in Path("results/noisy_domains/report.md").read_text()
    assert "yes" in capsys.readouterr().out
