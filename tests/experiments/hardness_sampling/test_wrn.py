"""Runs the experiment on WRN-16-1, tiny, and stops it in the middle."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.hardness_sampling import wrn
from mixjax.runner import configs, results
from mixjax.sweeps.checkpoints import ChangedError

pytestmark = pytest.mark.usefixtures("quick_compilation")


FOLDER = Path(__file__).parents[3] / "configs" / "hardness_sampling"


@pytest.mark.slow
def test_wrn_goes_on_where_it_was_stopped(images, small_wrn, tmp_path, monkeypatch):
    overrides = ["keep=0.1", "batch_size=4", "probe_size=30", "test_size=30", "num_steps=6", "record_every=2"]
    config = configs.load(FOLDER / "wrn.toml", overrides)
    assert config.sweep.first_seed >= 1000
    made = wrn.schemes(config.runs[0].values, images)
    monkeypatch.setattr(wrn, "schemes", lambda *_: made)  # equal functions: compiled once
    told = []

    def stop(line, **kwargs):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    whole = results.read(wrn.run(FOLDER / "wrn.toml", tmp_path / "whole", overrides, report=lambda *_, **__: None))
    with pytest.raises(KeyboardInterrupt):
        wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", overrides, report=stop)
    assert results.read(tmp_path / "parts")["run"].step.values.tolist() == [2, 4]
    parts = results.read(wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", overrides, report=stop))
    assert parts["run"].step.values.tolist() == [2, 4, 6] and len(told) == 3
    for name, values in whole["run"].items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(values, parts["run"][name], err_msg=name)
    rows = json.loads((tmp_path / "parts" / "claims.json").read_text())
    assert rows and all(row["holds"] is None and row["statement"].startswith("ours") for row in rows)

    shapes = jax.eval_shape(wrn.wrn(config.runs[0].values).train, jax.random.key(1000), {}, images)
    assert {name: shape.shape for name, shape in shapes.items()} == dict.fromkeys(whole["run"], (3, 3))
    with pytest.raises(ChangedError, match=r"config\.num_steps: 6, now 4"):
        wrn.run(FOLDER / "wrn.toml", tmp_path / "parts", [*overrides, "num_steps=4"])
