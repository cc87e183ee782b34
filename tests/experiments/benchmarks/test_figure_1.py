"""Tests that a side that trains otherwise is an error, and that the setting is the config's."""

import numpy as np
import pytest

from experiments.benchmarks import figure_1
from experiments.loss_and_sampling_weights import linear


class _Result:
    def __init__(self, values):
        self.params = self
        self.values = values


def test_a_side_that_trains_otherwise_is_an_error(monkeypatch):
    config, _ = figure_1.settings(quick=True)
    params = {name: np.full(config.dim, 0.1) for name in linear.METHODS}
    monkeypatch.setattr(figure_1, "final_params", lambda *_: params)
    monkeypatch.setattr(figure_1.mixjax, "sweep", lambda *_, **__: _Result(1.01 * np.full((1, 6, 2, config.dim), 0.1)))
    with pytest.raises(AssertionError, match="loop does not train as the sweep does"):
        figure_1.differences(config, ["loop"])


def test_the_setting_is_the_config_files():
    config, batch_size = figure_1.settings()
    assert (config.scales, config.dim, config.num_steps, batch_size) == ((100.0, 1.0), 1000, 2000, 4)
