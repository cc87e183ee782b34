"""Fixtures for results."""

import sys

import pytest

from mixjax.runner.configs import load


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Toy:\n    steps: int = 1\n"
        "def toy(config: Toy): ...\n"
    )
    (tmp_path / "toy.toml").write_text(f'experiment = "{module}:toy"\n[sweep]\nseeds = 3\n')
    return load(tmp_path / "toy.toml", ["steps=2"])
