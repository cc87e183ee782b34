"""Tests what a step demands of the machine."""

from experiments.benchmarks import roofline, short_runs

LINEAR, MLP = short_runs.problems(quick=True)


def test_a_steps_demand_grows_with_the_runs():
    one, four = roofline.demand(MLP, 1), roofline.demand(MLP, 4)
    assert four.flops == 4 * one.flops and four.bytes > 3 * one.bytes and four.working_set > one.working_set
