"""Tests the simulation on a few swarms: its truth, and the numbers that it counts."""

import numpy as np
import pytest

from experiments.mixture_design.simulation import Kind, best_mixture, checked, inside, planted
from mixjax.design.laws import LAWS


@pytest.mark.parametrize("law", ["log_linear", "power", "quadratic"])
def test_the_best_mixture_is_the_best_of_many(law):
    params = planted(Kind(law, 3, 24, 1, 0.02), np.random.default_rng(0))
    best = best_mixture(law, params)
    others = np.random.default_rng(1).dirichlet(np.ones(3), 2000)
    values = LAWS[law].predict(params, np.vstack([best, others])).mean(axis=0)
    assert values[0] <= values[1:].min() + 1e-12 and values[0] > values[1:].min() - 0.01
    assert np.ptp(LAWS[law].predict(params, others), axis=1).min() > 0.3


def test_counts_what_is_inside():
    assert inside(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4), np.array([1.0, 2.0, 2.0, 9.0])) == 0.75


def test_a_few_swarms_keep_the_promises():
    row = checked(Kind("log_linear", 3, 40, 1, 0.02), 6, resamples=100)
    assert list(row) == ["coverage", "runs", "optimum", "value", "regret"]
    assert 0.7 <= row["coverage"] <= 1.0 and 0.8 <= row["runs"] <= 1.0
    assert row["optimum"] >= 5 / 6 and -1e-9 <= row["regret"] < 0.1
