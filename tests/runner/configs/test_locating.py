"""Configs found by path or by name, and the experiments that come with mixjax beside a user's own."""

import sys
from pathlib import Path

import pytest

from mixjax.runner.configs import ConfigError, load, locating
from tests.runner.configs.toy import MODULE


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed mixjax with a package of experiments, in the environment of a user's project, where the user is."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    package = f"trials_{tmp_path.name}"
    project = tmp_path / "project"
    folder = project / ".venv" / "mixjax"
    for name in ("one", "first/two", "second/two", "third/three"):
        config = folder / "_shipped" / "configs" / f"{name}.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f'experiment = "{package}.shipped:toy"\nsteps = 1')
    _write_package(folder / "_shipped" / package, "shipped")
    (project / "pyproject.toml").write_text("")
    monkeypatch.setattr(locating, "__file__", str(folder / "runner" / "configs" / "locating.py"))
    monkeypatch.chdir(project)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _write_package(folder, module):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / f"{module}.py").write_text(MODULE)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("one", "one"),
        ("one.toml", "one"),
        ("configs/one.toml", "one"),
        ("first/two", "first/two"),
        ("configs/second/two.toml", "second/two"),
        ("three", "third/three"),
    ],
)
def test_a_config_of_mixjax_is_found_by_its_name(wheel, given, name):
    config = load(given)
    assert locating.shipped_name(config.path) == name and config.runs[0].values.steps == 1
    assert locating.project_root(config.path) == Path.cwd() / ".venv" / "mixjax" / "_shipped"


def test_a_name_that_several_configs_have_and_one_that_none_has(wheel):
    with pytest.raises(ConfigError, match=r"two: several configs are called so; write one of first/two, second/two"):
        load("two")
    with pytest.raises(FileNotFoundError, match=r"first/tow: no such config file, .*; did you mean 'first/two'"):
        load("first/tow")
    with pytest.raises(FileNotFoundError, match=r"nor a config of this name; `mixjax list` shows all$"):
        load("something_else.toml")


def test_a_file_of_the_user_wins_over_a_name(wheel):
    _write_package(Path("own"), "mine")
    Path("one.toml").write_text('experiment = "own.mine:toy"\nsteps = 5')
    assert load("one.toml").runs[0].values.steps == 5
    assert load("one").runs[0].values.steps == 1


def test_the_users_package_serves_the_users_configs(wheel):
    _write_package(Path(wheel), "mine")
    Path("mine.toml").write_text(f'experiment = "{wheel}.mine:toy"\nsteps = 5')
    config = load("mine.toml")
    assert config.runs[0].values.steps == 5
    assert sys.modules[wheel].__file__ == str(Path.cwd() / wheel / "__init__.py")
    # Python keeps one package of a name in a process, so mixjax's own is refused here, not mixed up with the user's.
    with pytest.raises(ConfigError, match=r"this process has already imported another"):
        load("one")


@pytest.mark.parametrize("on_path", [False, True])
def test_mixjaxs_package_serves_its_configs_and_results_of_them(wheel, on_path):
    _write_package(Path(wheel), "mine")
    if on_path:  # as an editable installation of a checkout has it
        sys.path.append(str(locating.shipped_folder()))
    Path("config.toml").write_text(f'experiment = "{wheel}.shipped:toy"\nsteps = 5')
    assert load("config.toml").runs[0].values.steps == 5
    assert load("one").runs[0].values.steps == 1
    assert sys.modules[wheel].__file__ == str(locating.shipped_folder() / wheel / "__init__.py")


def test_a_checkout_ships_its_own_folders():
    assert locating.shipped_folder() == Path(__file__).parents[3]
    names = locating.shipped_names()
    assert "quickstart" in names and "live_mix/text" in names
    assert locating.config_path(Path("quickstart")) == locating.shipped_folder() / "configs" / "quickstart.toml"
