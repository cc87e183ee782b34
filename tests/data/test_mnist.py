"""MNIST's files and sources."""

import pytest

from mixjax import data
from mixjax.data import mnist
from tests.data.small_mnist import CANONICAL, NAMES, PIXELS, contents, fake_openml


def test_missing_mnist_names_the_command(mnist_cache, mnist_files, monkeypatch):
    monkeypatch.setattr(mnist, "SOURCES", {})  # load must not even look at them
    with pytest.raises(FileNotFoundError, match="`mixjax data mnist`") as error:
        data.load("mnist")
    assert str(mnist_cache) in str(error.value) and "MIXJAX_DATA" in str(error.value)


def test_checksums_are_those_of_the_four_canonical_files():
    assert len(NAMES) == 4 and all(len(bytes.fromhex(digest)) == 32 for digest in CANONICAL.values())


def test_fetch_from_openml_rebuilds_the_files(mnist_cache, mnist_files, monkeypatch):
    calls = fake_openml(monkeypatch, PIXELS)
    data.fetch("mnist", source="openml")
    assert contents(mnist_cache) == mnist_files
    assert calls[0][0] == "mnist_784"


def test_openml_arrays_are_verified_too(mnist_cache, mnist_files, monkeypatch):
    fake_openml(monkeypatch, PIXELS[::-1])
    with pytest.raises(RuntimeError, match=f"openml: ValueError: {NAMES[0]} is damaged or not the canonical file"):
        data.fetch("mnist", source="openml")
    assert contents(mnist_cache) == {}
