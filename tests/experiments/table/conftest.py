"""Puts made-up data in the place of real ones, and holds the table's config."""

from pathlib import Path

import numpy as np
import pytest

import mixjax.data
from mixjax.runner import configs

CONFIGS = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights"


def fake_images(name, **kwargs):
    rng, side = np.random.default_rng(0), {"mnist": 28, "digits": 8}[name]
    train, test = rng.random((400, side * side), np.float32), rng.random((40, side * side), np.float32)
    labels = [np.arange(len(images), dtype=np.int32) % 10 for images in (train, test)]
    return mixjax.data.Images(train, labels[0], test, labels[1], (side, side), 10, "noise, for shapes only")


def fake_table(name, **kwargs):
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(3, dtype=np.int32), [70, 60, 40])
    labels, names = rng.integers(2, size=groups.size, dtype=np.int32), ("group 0", "group 1", "group 2")
    features = rng.normal(size=(groups.size, 2)).astype(np.float32)
    return mixjax.data.Table(features, labels, groups, names, ("a", "b"), "noise, for shapes only")


@pytest.fixture(scope="module", autouse=True)
def no_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixjax.data, "load", fake_images)
        patch.setattr(mixjax.data, "load_table", fake_table)
        yield


@pytest.fixture(scope="module")
def config():
    return configs.load(CONFIGS / "table.toml")
