"""Tests the count of rows and operations of a run."""

from experiments.benchmarks import figure_1, floor


def test_rows_and_operations_of_a_run():
    config, _ = figure_1.settings()
    rows, flops = floor.rows_and_flops(config)
    assert rows == 2000 * 16 + 50 * 2 * (100 + 32)
    assert flops == 1000 * (4 * 32000 + 2 * 10000 + 6 * 3200)
