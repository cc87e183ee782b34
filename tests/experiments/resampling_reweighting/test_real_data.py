"""Tests the real-data experiment on a small problem, from config to claims."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.resampling_reweighting import domains, real_data, real_data_training
from mixjax.runner import configs, experiment

FOLDER = Path(__file__).parents[3] / "configs" / "resampling_reweighting"


def test_a_batch_has_an_example_of_each_domain(toy, monkeypatch):
    monkeypatch.setattr(domains, "mnist", lambda *_: toy[0])
    with pytest.raises(ValueError, match="batch_size must be at least 2, one a domain, got 1"):
        real_data.real_data(real_data_training.RealData(source="mnist", num_examples=40, batch_size=1))


@pytest.mark.parametrize("name", ["real_mlp", "real_transformer"])
def test_configs_judge_on_new_seeds(name):
    config = configs.load(FOLDER / f"{name}.toml")
    assert config.sweep.first_seed >= 1000 and not config.sweep.axes
    for run in config.runs:
        assert run.values.learning_rate == run.values.strength == 1.0


def test_a_tiny_run_to_the_end(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(domains, "mnist", lambda *_: toy[0])
    measured = real_data.milliseconds

    def of_one(config, problem):  # each method more is compiled once more
        return np.repeat(measured(dataclasses.replace(config, methods=("sgd",)), problem), 2, axis=0)

    monkeypatch.setattr(real_data, "milliseconds", of_one)
    config = tmp_path / "tiny.toml"
    config.write_text("""
        experiment = "experiments.resampling_reweighting.real_data:real_data"
        source = "mnist"
        num_examples = 40
        num_evaluated = 40
        num_measured = 4
        num_probed = 4
        batch_size = 8
        num_steps = 20
        record_every = 10
        target = 4.0
        rates = {sgd = 0.01, rr = 0.01}
        methods = ["sgd", "rr"]
        sweep.seeds = 2
    """)
    path = experiment.run(configs.load(config), out=tmp_path / "out")
    claims = json.loads((path / "claims.json").read_text())
    assert len(claims) == 4 and (path / "figure.png").stat().st_size > 10_000
    metrics = np.load(path / "metrics.npz")
    loss = next(metrics[key] for key in metrics.files if key.endswith("loss"))
    times = next(metrics[key] for key in metrics.files if key.endswith("milliseconds"))
    assert times.shape == (2, 2, real_data.TURNS) and (times > 0).all()
    assert loss.shape == (2, 2, 3) and np.ptp(loss[:, :, 0], axis=1).max() < 1e-6  # from the same parameters
    assert np.isfinite(loss).all() and np.ptp(loss[:, :, 2], axis=1).min() > 1e-5
