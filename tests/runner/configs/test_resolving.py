"""The experiment that a config names: where it is looked for, and what it must be."""

import re
import sys

import pytest

from mixjax.runner.configs import ConfigError, load
from tests.runner.configs.toy import MODULE


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("tyo", ["no function 'tyo'", "did you mean 'toy'?"]),
        ("Nothing_like_it", ["no function", "known: toy, future"]),
        ("bare", ["annotated with a frozen dataclass, got None"]),
        ("wrong", ["annotated with a frozen dataclass", "int"]),
        ("thawed", ["annotated with a frozen dataclass", "Thawed"]),
        ("missing_name", ["annotations of missing_name", "Nope"]),
        ("clash", ["Clash has a field 'name'", "reserve"]),
        ("odd", ["Odd has a field that TOML cannot give"]),
    ],
)
def test_function_errors(make, function, parts):
    with pytest.raises(ConfigError) as error:
        make("", function=function)
    for part in ["toy.toml: ", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("steps = 1", "no experiment; write experiment ="),
        ("experiment = 3", "must be a string"),
        ('experiment = "linear"', 'must be a string "module:function"'),
        ('experiment = "no_such_module_here:f"', "no module 'no_such_module_here' in"),
        ('experiment = "json.nope:f"', "no module 'json.nope' in"),
    ],
)
def test_experiment_errors(make, line, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(line, function=None)


def test_project_root_current_folder_and_installed_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    project, other = tmp_path / "project", tmp_path / "elsewhere"
    (project / "configs" / "deep").mkdir(parents=True)
    other.mkdir()
    (project / "pyproject.toml").write_text("")
    (project / "rooted_experiment.py").write_text(MODULE)
    for folder in (project / "configs" / "deep", other):
        (folder / "c.toml").write_text('experiment = "rooted_experiment:toy"\nsteps = 1')
    assert load(project / "configs" / "deep" / "c.toml").runs[0].values.steps == 1
    del sys.modules["rooted_experiment"]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project)])
    with pytest.raises(ConfigError, match="no module"):
        load(other / "c.toml")
    monkeypatch.chdir(project)  # a resolved config far from its project still runs inside the project
    assert load(other / "c.toml").runs[0].values.steps == 1
    (other / "rooted_experiment.py").write_text(MODULE)
    with pytest.raises(ConfigError, match="already imported another 'rooted_experiment'"):
        load(other / "c.toml")


def test_an_import_error_inside_the_module_is_not_hidden(make, tmp_path):
    (tmp_path / "broken_experiment.py").write_text("import not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        make('experiment = "broken_experiment:f"', function=None)
