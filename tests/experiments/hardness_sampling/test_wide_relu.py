"""Runs the experiment on a wide ReLU network, tiny, from config to claims."""

import json
from pathlib import Path

import pytest

from experiments.hardness_sampling.sentences import SENTENCES
from mixjax.runner import configs, experiment

CONFIG = Path(__file__).parents[3] / "configs" / "hardness_sampling" / "wide_relu.toml"


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(first_run_only, tmp_path):
    # Six seeds: of three, Student's t decides nothing where an error is a quarter of its threshold.
    changes = ["width=32", "num_examples=8", "num_steps=100", "num_records=10", "sweep.seeds=6"]
    changes += ["sweep.beta=[0.0, 0.01, 30.0]", "sweep.step_size=[1.0, 4.0, 64.0]"]
    path = experiment.run(configs.load(CONFIG, changes), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    ours = {"staleness_error_rises"}
    assert set(rows) - ours == {name for name, (section, _) in SENTENCES.items() if section[:2] in ("3.", "12")} - {
        "importance_sampling_compensates"
    }
    assert rows["gradient_law"]["holds"] and rows["own_loss_raises_probability"]["holds"]
    assert rows["staleness_error_rises"]["value"] > 0
    assert "d = 1" in rows["exact_losses_converge"]["note"]
    assert (path / "figure.png").stat().st_size > 10_000
