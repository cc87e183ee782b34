"""Tests the verdicts of the benchmark of samplers."""

from experiments.benchmarks import draws, samplers, timing


def test_targets_of_the_sampler_benchmark():
    def times(ours, numpy, other):
        return {
            draws.OURS[True]: [ours] * 3,
            draws.OURS[False]: [ours] * 3,
            draws.NUMPY: [numpy] * 3,
            "x": [other] * 3,
        }

    measured = {
        (n, b, law): times(1e-4 * (1 + n // 1000), 1e-4 * n, 1e-4)
        for n in (10, 1000)
        for b in samplers.BATCHES
        for law in (True, False)
    }
    rows = samplers.targets(measured, timing.summarize([0.5, 0.5]), {10: 13.0, 1000: 5.0})
    held = {row.statement: row.holds for row in rows}
    assert held["at most 1 ms a step at n = 1e+03 (independent, B = 64)"]
    assert [row.measured for row in rows if "300 times" in row.statement] == ["500 (500 to 500) times"] * 2
    worst = [row for row in rows if "1.3 times" in row.statement]
    assert [row.holds for row in worst] == [False] * 4 and "2 times (x, n = 1e+03)" in worst[0].measured
    assert held["at most 1 % of a WRN-16-1 training step"] and not held["at most 3 floats an example"]
