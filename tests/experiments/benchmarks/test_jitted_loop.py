"""Tests that the Python loop of jitted steps trains as the sweep does."""

import pytest

from experiments.benchmarks import figure_1


@pytest.mark.slow
def test_the_python_loop_trains_as_the_sweep_does():
    config, _ = figure_1.settings(quick=True)
    assert figure_1.differences(config, ["loop"], seed=3)["loop"] < 1e-5
