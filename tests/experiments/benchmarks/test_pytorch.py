"""Tests the rival in PyTorch where it has a right answer."""

import sys

import numpy as np
import pytest

from experiments.benchmarks import figure_1, pytorch


def test_pytorch_missing_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"the comparison with PyTorch needs torch: pip install .*torch"):
        pytorch.load()


def test_pytorch_allocates_as_mixjax_does():
    for q in (0.5, 0.02, 0.7, 0.999):
        weights = np.array([q, 1 - q], np.float32)
        assert pytorch.allocate(weights.tolist(), 16) == figure_1.mixjax.samplers.allocate(weights, 16).tolist()
