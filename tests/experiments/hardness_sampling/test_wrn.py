"""Runs the experiment on WRN-16-1, tiny, and kills it in the middle."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.hardness_sampling import wrn
from mixjax.runner import configs, experiment, results
from mixjax.sweeps import in_rounds

FOLDER = Path(__file__).parents[3] / "configs" / "hardness_sampling"


@pytest.mark.slow
def test_wrn_goes_on_where_it_was_killed(images, small_wrn, tmp_path, monkeypatch):
    overrides = ["keep=0.1", "batch_size=4", "probe_size=30", "test_size=30", "num_steps=6", "record_every=2"]
    config = configs.load(FOLDER / "wrn.toml", overrides)
    assert config.sweep.first_seed >= 1000
    made = wrn.schemes(config.runs[0].values, images)
    monkeypatch.setattr(wrn, "schemes", lambda *_: made)  # equal functions: compiled once
    monkeypatch.setattr(wrn, "in_rounds", functools.partial(in_rounds, at_least=0.0))

    def killed_at(part, told):
        def callback(name, done, total):
            told.append(done)
            if done >= part:
                raise KeyboardInterrupt

        return callback

    whole = results.read(experiment.run(config, out=tmp_path / "whole"))["run"]
    before, after = [], []
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, out=tmp_path / "killed", callback=killed_at(0.5, before))
    killed = results.read(experiment.run(config, out=tmp_path / "killed", callback=killed_at(2.0, after)))["run"]
    # Three methods of three rounds each, killed after the fifth round. The first method is done, and not trained again.
    np.testing.assert_allclose([each for each in before if each], np.arange(1, 6) / 9)
    trained = [round(9 * each) for each in after if 0 < each < 1]
    assert trained == list(range(trained[0], 9)) and 4 <= trained[0] <= 6
    assert whole.step.values.tolist() == [2, 4, 6]
    for name, values in whole.items():
        assert np.isfinite(values).all() and values.shape == (1, 3, 3), name
        np.testing.assert_array_equal(values, killed[name], err_msg=name)
    rows = json.loads((tmp_path / "killed" / "claims.json").read_text())
    assert rows and all(row["holds"] is None and row["statement"].startswith("ours") for row in rows)
