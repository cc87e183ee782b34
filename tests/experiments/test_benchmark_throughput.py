"""The benchmark of throughput: its sides train the same, its counts are right, its verdicts can fail."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import eager_runs, roofline, short_runs, throughput, throughput_report, timing
from mixjax import rules
from mixjax.sweeps import costs

pytestmark = pytest.mark.usefixtures("quick_compilation")
LINEAR, MLP = short_runs.problems(quick=True)


@pytest.mark.parametrize("problem", [dataclasses.replace(LINEAR, batch=4), MLP], ids=["batches", "MLP"])
def test_the_loop_and_pytorch_train_as_the_sweep_does(problem, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is missing: extra bench")
    assert max(throughput.check_equal(problem).values()) < 1e-4
    other = dataclasses.replace(problem, learning_rate=2 * problem.learning_rate)
    monkeypatch.setattr(short_runs, "loop", lambda _, runs, loop=short_runs.loop: loop(other, runs))
    with pytest.raises(AssertionError, match="loop does not train"):
        throughput.check_equal(problem)


def test_erma_in_floats_is_the_rule():
    rule = rules.erma(0.01)
    state = rule.init(jnp.ones(3))
    losses, variances, weights = [3.0, 1.0, 0.2], [2.0, 5.0, 0.1], [1 / 3] * 3
    for _ in range(4):
        state = rule.update(state, counts=jnp.ones(3), losses=jnp.array(losses), loss_vars=jnp.array(variances))
        weights = eager_runs.erma(weights, losses, variances, 0.01)
    np.testing.assert_allclose(weights, state.weights, rtol=1e-5)


def test_operations_of_a_steps_products():
    for problem in (LINEAR, MLP):
        params, rows = problem.start(jax.random.key(0))
        carry = params, rules.erma().init(jnp.ones(problem.domains))
        counted = costs.flops(problem.step, carry, rows[0], jnp.float32(0), short_runs.data(problem))
        assert 0 < counted - problem.product_flops < 40 * problem.rows + 40 * problem.rows * sum(problem.widths[1:])
    assert MLP.product_flops == 2 * 16 * (2 * 8 * 16 + 3 * 16 * 4)


def test_a_steps_demand_grows_with_the_runs():
    one, four = roofline.demand(MLP, 1), roofline.demand(MLP, 4)
    assert four.flops == 4 * one.flops and four.bytes > 3 * one.bytes and four.working_set > one.working_set


def test_quick_measurements_make_a_report_with_its_figure(tmp_path, monkeypatch):
    """In this process; the command's workers are processes of their own."""
    pytest.importorskip("torch", reason="PyTorch is missing: extra bench")
    monkeypatch.setattr(short_runs, "problems", lambda quick: [LINEAR])
    found = throughput.measure(quick=True)
    found |= {"one core": None, "by devices": None}
    report = throughput_report.report(found, quick=True, on_cpu=True)
    assert [target.holds for target in report.targets if "GPU" in target.statement] == [None]
    command.write(tmp_path, {"CPU": "a CPU"}, {"h": report}, seconds=1.0, quick=True)
    assert (tmp_path / "roofline.png").stat().st_size > 10_000
    assert "![roofline](roofline.png)" in (tmp_path / "RESULTS.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["h"][LINEAR.name]["runs"]["runs"] == 8
    elsewhere = throughput_report.targets(found, [LINEAR.name], on_cpu=False)
    assert [t.holds for t in elsewhere if "loop of jitted runs" in t.statement] == [False]


def test_the_roof_is_the_lower_of_peak_and_bandwidth():
    def rate(value):
        return timing.summarize([value])._asdict()

    found = {"peaks": {"products": {1: rate(50.0), 2: rate(100.0)}, "triad": {8: rate(20.0), 64: rate(10.0)}}}
    assert throughput_report.roof(found, {"intensity": 2.0, "working_set": 9}) == 0.2
    assert throughput_report.roof(found, {"intensity": 2.0, "working_set": 8}) == 0.4
    assert throughput_report.roof(found, {"intensity": 99.0, "working_set": 1e9}) == 1.0
