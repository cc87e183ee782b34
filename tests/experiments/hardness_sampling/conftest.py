"""Provides small images of ten patterns, and a small residual network."""

import jax
import jax.numpy as jnp
import pytest

import mixjax.data
from experiments.hardness_sampling import classifiers, imbalanced, rare_class
from tests.experiments.hardness_sampling.cases import fake_images


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", fake_images)
    return jax.tree.map(jnp.asarray, rare_class.load(3))


@pytest.fixture
def small_wrn(monkeypatch):
    """Gives the residual network one block, and makes chunks no longer than the sets that are measured."""
    monkeypatch.setattr(classifiers.WideResNet, "GROUPS", ((16, 64, 4),))
    monkeypatch.setattr(imbalanced, "CHUNK", 30)
