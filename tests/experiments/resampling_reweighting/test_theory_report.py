"""Runs the experiment on section 3 of paper 003 from config to claims."""

import pytest


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(run_tiny):
    rows = run_tiny("theory", "num_steps=20", "runs=2", "horizon=0.2")
    assert rows["unbiased"]["holds"] is True
    assert {"stability_rr_5", "wider_steps_1", "stays_rr", "rate_exact_rr", "nearer_to_flow"} <= set(rows)
