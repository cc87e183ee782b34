"""Tests the scores of the rejection draws, and the table they end in."""

from experiments.benchmarks import rejection


def test_rejection_beside_the_tree():
    for skew in rejection.SKEWS:
        assert abs(rejection.scores_of(10**5, skew).mean() * skew - 1) < 0.05
    text, data = rejection.run(quick=True)
    assert "| by rejection, largest over mean 100 |" in text and "n = 10^3" in text
    assert set(data["n=1000 skew=2"]) == set(rejection.SIDES)
    assert min(row["low"] for sides in data.values() for row in sides.values()) > 0
