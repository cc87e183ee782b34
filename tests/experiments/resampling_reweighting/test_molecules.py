"""Tests runs on the potential energy surfaces."""

import jax
import numpy as np
import pytest

from experiments.resampling_reweighting import molecules, surfaces


def test_steps_that_lead_too_far_are_not_taken():
    config = molecules.Molecules(learning_rate=1e6, last_rate=1e6, num_steps=20)
    found = molecules.train(jax.random.key(0), config, surfaces.mueller_brown())
    assert np.isfinite(found["z"]).all() and (abs(found["z"]) <= molecules.FAR).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [("mueller_brown", ["num_steps=40"]), ("large_system", ["num_steps=50", "record_every=10"])],
)
def test_tiny_runs_end_in_claims(run_tiny, name, changes):
    assert name in run_tiny(name, *changes)
