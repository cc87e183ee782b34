"""G(t)'s experiment: eq. 12 by hand, and a tiny run from the config to the claims."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_and_sampling_weights import gap_sign
from experiments.loss_and_sampling_weights.gap_sign import GapSign
from mixjax.runner import configs, experiment, results

CONFIG = Path(__file__).parents[3] / "configs" / "loss_and_sampling_weights" / "gap_sign.toml"


def test_gap_is_eq_12s():
    rng = np.random.default_rng(0)
    after, losses = rng.random(6).astype(np.float32), rng.random((6, 2)).astype(np.float32)
    found = gap_sign.gaps(jnp.asarray(after), jnp.asarray(losses))
    assert found[0] == 0.0  # w = 1 until the first update
    w = np.stack([after, 1 - after], axis=1)[:-1] / 0.5
    np.testing.assert_allclose(found[1:], np.sum(0.5 * (1 - w) * losses[1:], axis=1), atol=1e-6)


@pytest.mark.parametrize("change", [{"num_examples": 50}, {"estimation": "fresh"}])
def test_gap_needs_a_hold_out_that_stays(change):
    with pytest.raises(ValueError, match="hold-out"):
        GapSign(**change)


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(tmp_path):
    changes = ["fresh_size=20", "dim=10", "num_steps=40", "estimation_size=20", "learning_rate=0.01"]
    changes += ["sweep.seeds=20", "sweep.chunk=20"]
    path = experiment.run(configs.load(CONFIG, changes), out=tmp_path / "out")
    rows = {row["name"]: row for row in json.loads((path / "claims.json").read_text(encoding="utf-8"))}
    assert set(rows) == {"gap_positive", "gap_negative", "gap_sign_over_training", "gap_stays_positive_100_100"}
    assert rows["gap_positive"]["holds"]
    for data in results.read(path).values():
        for gap in (data.gap.values, data.gap_hold_out.values):
            np.testing.assert_array_equal(gap[:, :5], 0.0)  # four rounds of warm-up, then last round's weights
            assert np.abs(gap[:, 5:]).min() > 0
        assert not np.allclose(data.gap, data.gap_hold_out)
    assert (path / "figure.png").stat().st_size > 10_000
