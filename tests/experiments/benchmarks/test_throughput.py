"""Tests that the sides of the benchmark of throughput train the same, and that a measurement makes a report."""

import dataclasses
import json

import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import short_runs, throughput, throughput_report

LINEAR, MLP = short_runs.problems(quick=True)


@pytest.mark.parametrize("problem", [dataclasses.replace(LINEAR, batch=4), MLP], ids=["batches", "MLP"])
def test_the_loop_and_pytorch_train_as_the_sweep_does(problem, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is missing: extra bench")
    assert max(throughput.check_equal(problem).values()) < 1e-4
    other = dataclasses.replace(problem, learning_rate=2 * problem.learning_rate)
    monkeypatch.setattr(short_runs, "loop", lambda _, runs, loop=short_runs.loop: loop(other, runs))
    with pytest.raises(AssertionError, match="loop does not train"):
        throughput.check_equal(problem)


def test_quick_measurements_make_a_report_with_its_figure(tmp_path, monkeypatch):
    """In this process; the command's workers are processes of their own."""
    pytest.importorskip("torch", reason="PyTorch is missing: extra bench")
    monkeypatch.setattr(short_runs, "problems", lambda quick: [LINEAR])
    found = throughput.measure(quick=True)
    found |= {"one core": None, "by devices": None}
    report = throughput_report.report(found, quick=True, on_cpu=True)
    assert [target.holds for target in report.targets if "GPU" in target.statement] == [None]
    session = command.Session(["throughput"], {"CPU": "a CPU"}, seconds=1.0, quick=True)
    command.write(tmp_path, "throughput", session, report)
    tmp_path /= "throughput"
    assert (tmp_path / "roofline.png").stat().st_size > 10_000
    assert "![roofline](roofline.png)" in (tmp_path / "RESULTS.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["data"][LINEAR.name]["runs"]["runs"] == 8
    elsewhere = throughput_report.targets(found, [LINEAR.name], on_cpu=False)
    assert [t.holds for t in elsewhere if "loop of jitted runs" in t.statement] == [False]
