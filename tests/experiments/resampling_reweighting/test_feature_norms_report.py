"""Runs the experiment on features of norm 1 and K from config to claims."""

import pytest


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(run_tiny):
    changes = ["num_steps=20", "num_examples=20", "sweep.learning_rate=[0.01]", "sweep.share=[0.2, 0.6]"]
    rows = run_tiny("feature_norms", *changes)
    assert {"feature_norms_0_2", "feature_norms_0_6_group", "feature_norms_sgd_leaves"} <= set(rows)
