"""Tests the comparison of ways to choose a swarm's mixtures."""

from experiments.mixture_design import designs
from experiments.mixture_design.simulation import Kind


def test_every_way_has_a_row():
    case = Kind("log_linear", 3, 16, 1, 0.02), "log_linear"
    found = designs.compared(*case, 2, resamples=20)
    assert tuple(found) == designs.WAYS
    for columns in found.values():
        assert {len(values) for values in columns.values()} == {2} and min(columns["regret"]) >= -1e-9
    text = designs.section({case: found})
    assert text.count("| log_linear | log_linear | 3 | 16 | 0.02 |") == 5 and "draws 2 truths" in text
