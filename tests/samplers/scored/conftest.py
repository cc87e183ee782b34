"""Small trees with levels, what is tested on a few examples holds for many; programs that compile quickly."""

import pytest

from mixjax.samplers.scored import levels


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):
    """These tests compile longer than they compute."""


@pytest.fixture(autouse=True)
def widest(request, monkeypatch):
    """The root has at most so many children: 4, or what a test is parametrised with."""
    value = getattr(request, "param", 4)
    monkeypatch.setattr(levels, "WIDEST", value)
    return value
