"""The benchmark of whatever device there is."""

import json

import pytest

from experiments.benchmarks import device


def test_sizes_are_scaled_but_never_gone():
    full, least = device.sizes(1.0), device.sizes(1e-9)
    assert full.examples == 10**7 and full.runs == 4096
    assert all(size > 0 for size in least) and all(a <= b for a, b in zip(least, full, strict=True))


@pytest.mark.parametrize("scale", [0.0, -1.0, 2.0])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(ValueError, match=r"MIXJAX_BENCHMARK_SCALE must be above 0 and at most 1, got"):
        device.sizes(scale)


@pytest.mark.slow
def test_the_page_says_that_it_was_not_run_on_a_gpu(monkeypatch):
    report = device.run(quick=True)
    assert report.text.startswith("**Not run on a GPU**") and all(target.holds is None for target in report.targets)
    assert len(json.loads(json.dumps(report.data))["rows"]) == 5
