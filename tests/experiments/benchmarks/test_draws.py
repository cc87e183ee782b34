"""Tests that every side of the benchmark of samplers draws and writes back."""

from experiments.benchmarks import draws, samplers


def test_sides_of_the_sampler_benchmark_draw_and_write_back(monkeypatch):
    """Every side that needs no PyTorch runs, and leaves the history changed."""
    histories = []
    losses_of = draws.losses_of
    monkeypatch.setattr(draws, "losses_of", lambda n: histories.append(losses_of(n)) or histories[-1])
    for name, make in (draws.INDEPENDENT | draws.DISTINCT).items():
        if "PyTorch" not in name:
            make(50, 4)(2)
            if "NumPy" in name:  # the others keep their own copy
                assert (histories[-1] != losses_of(50)).sum() in range(1, 9), name


def test_sides_too_large_are_left_out():
    assert draws.stateless_side(10**7, 64, draws.categorical_draw) is None
    assert samplers.timed({"absent": None}, 2) == {}
