"""What all comparisons with peers share: differences are errors, peaks are seen, missing packages are named."""

import numpy as np
import pytest

from experiments.benchmarks import peers


def test_a_side_that_computes_something_else_is_an_error():
    found = {"ours": [np.array([1.0, -4.0]), np.zeros(3)], "theirs": [np.array([1.0, -4.0004]), np.zeros(3)]}
    assert peers.check("norms", found, "ours", 1e-3) == {"theirs": pytest.approx(1e-4)}
    with pytest.raises(AssertionError, match=r"theirs does not compute the norms of ours: off by 9\.99"):
        peers.check("norms", found, "ours", 1e-5)
    found["theirs"][1] = np.array([0.0, np.nan, 0.0])
    with pytest.raises(AssertionError, match="theirs does not compute the norms"):
        peers.check("norms", found, "ours", 1e-3)
    # which NumPy would stretch to the other's shape
    found["theirs"][1] = np.zeros(1)
    with pytest.raises(AssertionError, match="norms of other shapes"):
        peers.check("norms", found, "ours", 1e-3)


def test_the_peak_is_that_of_the_call_also_where_the_call_frees_it():
    def call():
        return float(np.ones(5_000_000).sum())

    for _ in range(2):
        assert 38 < peers.peak(call) < 60
    assert peers.peak(lambda: None) < 10


def test_a_table_names_the_sides_whose_package_is_missing():
    found = {"ours": peers.Found([2.0, 2.0], 1.0), "theirs": peers.Found([3.0, 5.0], 4.0)}
    rows = peers.table(found, ["ours", "theirs", "another"], "ours").splitlines()
    assert rows[3] == "| theirs | 4 (3 to 5) | 2 (1.5 to 2.5) | 4.0 | 4.00 |"
    assert rows[4] == "| another | not installed: extra `bench` |  |  |  |"
    assert peers.installed("numpy") and not peers.installed("no_such_module")
    assert peers.versions("numpy", "no-such-module") == f"numpy {np.__version__}"
