"""The commands that install what is missing, for every extra that ``pyproject.toml`` has."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from mixjax.extras import install_command

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def nothing_installed(monkeypatch):
    """An installed mixjax, and none of its extras."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    requirements = [f"{text}; extra == '{extra}'" for extra, texts in EXTRAS.items() for text in texts]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["jax>=0.7", *requirements])
    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_every_package_of_an_extra_and_no_other(nothing_installed, extra):
    packages = {re.match(r"[\w.-]+", text)[0] for text in EXTRAS[extra]}
    first = min(packages)
    assert install_command(extra, first).split() == ["pip", "install", *sorted(packages)]


def test_what_is_there_is_not_named(nothing_installed, monkeypatch):
    installed = {"scipy": "1.13"}.__getitem__
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed(name) if name == "scipy" else fail(name))

    def fail(name):
        raise importlib.metadata.PackageNotFoundError(name)

    assert install_command("segmentation", "nibabel") == "pip install nibabel"


def test_without_metadata_the_module_itself_is_named(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert install_command("experiments", "sklearn.metrics", "tomli_w") == "pip install scikit-learn tomli-w"


def test_every_extra_that_the_code_asks_for_exists():
    asked = set()
    for folder in ("mixjax", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            asked |= set(re.findall(r'(?:with requires|install_command)\(\s*"(\w+)"', path.read_text()))
    assert {"experiments", "live", "segmentation"} <= asked <= set(EXTRAS)


def test_no_message_asks_pip_for_mixjax_by_name():
    for folder in ("mixjax", "experiments", "configs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml") and path.name != "extras.py":
                assert not re.search(r"pip install '?\"?mixjax", path.read_text()), path
