"""Tests the cases of the benchmark of seeds."""

from experiments.benchmarks import figure_1, seeds


def test_the_small_case_has_the_dynamics_of_the_full_one():
    small, full = seeds.cases(quick=False)
    assert full.config == figure_1.settings()[0]
    assert full.config.dim == 10 * small.config.dim and full.config.num_examples == 10 * small.config.num_examples
    assert full.config.num_steps == 10 * small.config.num_steps
    assert full.config.num_steps * full.config.learning_rate == small.config.num_steps * small.config.learning_rate
    assert full.config.num_steps // full.config.probe_every == small.config.num_steps // small.config.probe_every


def test_every_case_has_seeds_that_fill_a_chunk():
    for case in [*seeds.cases(quick=True), *seeds.cases(quick=False)]:
        assert list(case.seeds) == sorted(case.seeds)
        assert case.seeds[0] < case.chunk <= case.seeds[-1]
