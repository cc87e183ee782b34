"""Tests the attainable rate."""

from experiments.benchmarks import throughput_report, timing


def test_the_roof_is_the_lower_of_peak_and_bandwidth():
    def rate(value):
        return timing.summarize([value])._asdict()

    found = {"peaks": {"products": {1: rate(50.0), 2: rate(100.0)}, "triad": {8: rate(20.0), 64: rate(10.0)}}}
    assert throughput_report.roof(found, {"intensity": 2.0, "working_set": 9}) == 0.2
    assert throughput_report.roof(found, {"intensity": 2.0, "working_set": 8}) == 0.4
    assert throughput_report.roof(found, {"intensity": 99.0, "working_set": 1e9}) == 1.0
