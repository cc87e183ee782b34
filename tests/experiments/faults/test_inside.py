"""Runs that diverge."""

from experiments.faults.inside import nan_runs


def test_diverging_runs_leave_their_neighbours_alone():
    row = nan_runs()
    assert (row.times, row.lost) == (200, "nothing")
