"""``mixjax new``: the project that it writes runs, passes its tests, and is what the guide shows."""

import importlib.resources
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_project_runs_at_once_and_passes_its_tests(mixjax_command, project, tmp_path, monkeypatch):
    name = f"new_{project.name}"
    code, out, err = mixjax_command("new", name.replace("_", "-"))
    folder = project / name.replace("_", "-")
    assert (code, err) == (0, "")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {f"{name}.py", f"test_{name}.py", f"configs/{name}.toml", "README.md", "pyproject.toml"}
    assert not [path for path in files if re.search(r"noisy[_-]domains", (folder / path).read_text())]
    # What the last line tells the user to do.
    assert len(out.splitlines()) == 6
    into, line = re.fullmatch(r"next: cd (\S+) && mixjax (.*)", out.splitlines()[-1]).groups()
    monkeypatch.chdir(into)
    code, out, err = mixjax_command(*line.split(), "--set", "sweep.seeds=2", "--set", "num_steps=20")
    assert code == 0 and "erma_helps" in out, err
    assert f"configs/{name}.toml" in mixjax_command("list")[1]
    # The tests of the project, in this process, which has JAX at hand.
    try:
        tests = runpy.run_path(f"test_{name}.py")
        tests["test_training_lowers_the_error"]()
        tests["test_the_config_runs"](tmp_path)
    finally:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("2fast", "NAME must be letters, digits and _, and not begin with a digit, got '2fast'"),
        ("class", "NAME must be letters"),
        ("a b", "NAME must be letters"),
        ("\ufb01le", "NAME must be letters"),
        ("__main__", "NAME: __main__ is the name of a module"),
        ("json", "NAME: json is the name of a module that can be imported already"),
        ("configs", "configs: is there already and not empty"),
        ("gs://bucket/x", "NAME: takes a path of the local file system"),
    ],
)
def test_a_name_that_will_not_do_is_one_line_and_exit_2(mixjax_command, project, name, said):
    before = sorted(project.rglob("*"))
    code, out, err = mixjax_command("new", name)
    assert (code, out) == (2, "") and err.startswith("mixjax: ") and said in err and err.count("\n") == 1
    assert sorted(project.rglob("*")) == before


def test_the_guide_shows_the_project_that_is_written():
    page = (ROOT / "experiments" / "guides" / "your_experiment.md").read_text()
    folder = importlib.resources.files("mixjax.cli").joinpath("project")
    for mark, name in (("module", "noisy_domains.py.txt"), ("config", "noisy_domains.toml.txt")):
        shown = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", page, re.DOTALL)
        assert shown and shown[1] == folder.joinpath(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["-x", "--help-me", "-", "--", "a/-x", "sp ace/-new_a", "$HOME/new_b"])
def test_a_shell_finds_the_folder_by_the_line_that_is_printed(mixjax_command, project, name):
    code, out, err = mixjax_command("new", "--", name)
    assert (code, err) == (0, "")
    told = re.fullmatch(r"next: (cd .+) && mixjax run configs/(\w+)\.toml", out.splitlines()[-1])
    shell = ["sh", "-c", f"{told[1]} && pwd -P"]
    place = subprocess.run(shell, cwd=project, capture_output=True, text=True, check=True)
    assert Path(place.stdout.rstrip("\n"), "configs", f"{told[2]}.toml").is_file()


def test_an_empty_folder_is_filled(mixjax_command, project, monkeypatch):
    (project / "here" / f"filled_{project.name}").mkdir(parents=True)
    monkeypatch.chdir(project / "here" / f"filled_{project.name}")
    code, out, _ = mixjax_command("new", ".")
    assert code == 0 and out.endswith(f"next: cd . && mixjax run configs/filled_{project.name}.toml\n")
    assert (project / "here" / f"filled_{project.name}" / f"filled_{project.name}.py").is_file()
