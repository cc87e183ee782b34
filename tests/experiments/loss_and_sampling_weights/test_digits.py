"""Tests the quickstart where runs diverge."""

from pathlib import Path

import numpy as np

from experiments.loss_and_sampling_weights import noisy_images
from mixjax.runner import experiment, results
from mixjax.runner.configs import load

CONFIGS = Path(__file__).parents[3] / "configs"


def test_runs_that_diverge_have_no_accuracy_and_a_figure_all_the_same(tmp_path):
    overrides = ["num_steps=20", "hidden=6", "sweep.seeds=2", "sweep.learning_rate=[0.3, 1e30]"]
    found = results.read(experiment.run(load(CONFIGS / "quickstart.toml", overrides), out=tmp_path / "result"))["run"]
    assert np.isfinite(found.accuracy[0]).all() and np.isnan(found.accuracy[1]).all()
    assert noisy_images.limits([found.isel(learning_rate=1)], "accuracy") == (0.0, 1.0)
    assert (tmp_path / "result/figure.png").exists()
