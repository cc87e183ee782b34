"""An empty cache of data sets for every test, and small files in place of MNIST's and of the corpora's."""

import hashlib

import pytest

from mixjax.data import idx, mnist
from tests.data import small_corpora
from tests.data.small_mnist import LABELS, NAMES, PIXELS


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty default cache, so that no test reads or writes the user's own."""
    monkeypatch.setenv("MIXJAX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mnist_cache(cache):
    """The folder of MNIST in the empty cache; it does not exist yet."""
    return cache / "mnist"


@pytest.fixture
def mnist_files(monkeypatch):
    """Four small IDX files, whose checksums are the canonical ones during the test."""
    parts = (PIXELS[:3], LABELS[:3], PIXELS[3:], LABELS[3:])
    made = {name: idx.encode(part) for name, part in zip(NAMES, parts, strict=True)}
    for name, content in made.items():
        monkeypatch.setitem(mnist.CHECKSUMS, name, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(mnist, "TRAIN_SIZE", 3)
    return made


@pytest.fixture
def small(monkeypatch):
    """Small packages in place of three corpora's: what a registry offers, {name: (version, bytes)}."""
    return small_corpora.pin(monkeypatch)
