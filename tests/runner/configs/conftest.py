"""A loader of configs that are written in a test."""

import sys

import pytest

from mixjax.runner.configs import ConfigError, load
from tests.runner.configs.toy import MODULE


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes a config beside a module of its own; returns a loader."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def make(text, *overrides, function="toy", file="toy.toml"):
        path = tmp_path / file
        path.write_text((f'experiment = "{module}:{function}"\n' if function else "") + text)
        return load(path, overrides)

    return make


@pytest.fixture
def refusal(make):
    """Returns a function that loads a config which must be refused, and returns the message."""

    def refusal(text, *overrides):
        with pytest.raises(ConfigError) as error:
            make(text, *overrides)
        return str(error.value)

    return refusal
