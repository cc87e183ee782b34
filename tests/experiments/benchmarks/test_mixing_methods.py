"""Tests the sides of the benchmark of mixing methods, and its verdicts."""

import pytest

from experiments.benchmarks import mixing_methods, timing
from experiments.live_mix.methods import METHODS


def test_the_sides_are_the_uniform_mix_and_every_method_that_moves_weights():
    found = mixing_methods.sides(quick=False)
    moving = [name for name, method in METHODS.items() if method.moves]
    assert list(found) == ["uniform", "uniform again", *moving]
    assert found["uniform"] == found["uniform again"]
    assert {config.num_steps for config in found.values()} == {100}
    assert all(config.method == name for name, config in found.items() if name != "uniform again")
    assert mixing_methods.OF_TRAINING == ("group_dro", "odm", "ado")


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [([1.0, 1.01, 1.05], True), ([1.01, 1.03, 1.05], None), ([1.03, 1.03, 1.1], False), ([0.9, 0.9, 0.9], True)],
)
def test_a_median_above_the_limit_is_a_miss_only_if_all_turns_are_above(ratios, verdict):
    assert mixing_methods.holds(timing.summarize(ratios)) is verdict
