"""Tests who counts as arrived, and runs figures 2 and 3 of paper 003 from config to claims."""

import numpy as np
import pytest
import xarray

from experiments.resampling_reweighting import welsch, welsch_report


def test_a_run_has_arrived_within_the_margin_of_the_best_loss():
    losses = np.array([[[0.9, 0.2], [0.9, 0.29], [0.9, 0.4]]])
    data = xarray.Dataset(
        {"loss": (("seed", "method", "step"), losses), "best_loss": (("seed",), [0.2])},
        {"method": list(welsch_report.METHODS), "step": [10, 20]},
    )
    found = welsch_report.arrived(data, welsch.Welsch(margin=0.125))  # up to a loss of 0.3
    assert found.values.tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("classification", ["num_steps=40", "record_every=20", "sizes=[20, 60]", "sweep.learning_rate=[0.01, 0.015]"]),
        ("regression", ["num_steps=40", "record_every=20", "sizes=[20, 60]"]),
    ],
)
def test_tiny_runs_end_in_claims(run_tiny, name, changes):
    rows = run_tiny(name, *changes)
    assert all(row.startswith(name) for row in rows)
