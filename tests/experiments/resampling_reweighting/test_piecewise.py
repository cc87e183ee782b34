"""Runs the experiment on figures 1 and 5 of paper 003 from config to claims."""

import pytest


@pytest.mark.slow
def test_a_tiny_run_ends_in_claims(run_tiny):
    rows = run_tiny("piecewise", "num_steps=60", "sweep.learning_rate=[0.03, 0.04]", "shown=[0.04, 0.03]")
    assert {"sgd_jumps", "rr_stays", "rr_wider_range", "rr_oscillates_less", "exact_chain_sgd"} <= set(rows)
