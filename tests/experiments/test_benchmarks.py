"""The benchmarks' parts that have a right answer: what is compared is the same, and is written down as it should be."""

import json
import re
import sys

import chex
import jax
import numpy as np
import pytest

from experiments.benchmarks import __main__ as command
from experiments.benchmarks import draws, figure_1, floor, norms, overhead, pytorch, rejection, samplers, timing
from experiments.loss_and_sampling_weights import linear


class _Result:
    def __init__(self, values):
        self.params = self
        self.values = values


@pytest.mark.slow
def test_the_python_loop_trains_as_the_sweep_does():
    config, _ = figure_1.settings(quick=True)
    assert figure_1.differences(config, ["loop"], seed=3)["loop"] < 1e-5


def test_a_side_that_trains_otherwise_is_an_error(monkeypatch):
    config, _ = figure_1.settings(quick=True)
    params = {name: np.full(config.dim, 0.1) for name in linear.METHODS}
    monkeypatch.setattr(figure_1, "final_params", lambda *_: params)
    monkeypatch.setattr(figure_1.mixjax, "sweep", lambda *_, **__: _Result(1.01 * np.full((1, 6, 2, config.dim), 0.1)))
    with pytest.raises(AssertionError, match="loop does not train as the sweep does"):
        figure_1.differences(config, ["loop"])


def test_the_setting_is_the_config_files():
    config, batch_size = figure_1.settings()
    assert (config.scales, config.dim, config.num_steps, batch_size) == ((100.0, 1.0), 1000, 2000, 4)


def test_pytorch_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'mixjax[bench]'")):
        pytorch.load()


def test_pytorch_allocates_as_mixjax_does():
    for q in (0.5, 0.02, 0.7, 0.999):
        weights = np.array([q, 1 - q], np.float32)
        assert pytorch.allocate(weights.tolist(), 16) == figure_1.mixjax.samplers.allocate(weights, 16).tolist()


def test_rows_and_operations_of_a_run():
    config, _ = figure_1.settings()
    rows, flops = floor.rows_and_flops(config)
    assert rows == 2000 * 16 + 50 * 2 * (100 + 32)
    assert flops == 1000 * (4 * 32000 + 2 * 10000 + 6 * 3200)


def test_sides_take_turns():
    calls = []
    seconds = timing.interleave({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == list("abbaab")
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_summaries():
    assert timing.summarize([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)
    assert timing.ratios([2.0, 8.0], [1.0, 2.0]) == (3.0, 2.0, 4.0, 2)
    assert str(timing.summarize([1234.5, 0.01234])) == "617 (0.0123 to 1234)"
    low, high = timing.median_interval(list(range(100)))
    assert (low, high) == (40, 60)  # ranks of a binomial's 2.5 and 97.5 % quantiles


def test_compilations_are_counted():
    with timing.compilations() as seconds:
        jax.jit(lambda x: x + 1)(np.float32(1.0))
    assert len(seconds) == 1 and seconds[0] > 0


def test_operations_leave_bookkeeping_out():
    class Program:
        def as_text(self):
            return (
                "HloModule m\n\n%f (p: f32[]) -> f32[] {\n  %p = f32[] parameter(0)\n  ROOT %a = f32[] add(%p, %p)\n}\n"
                "\nENTRY %main (x: f32[2,2]) -> (f32[2,2]) {\n  %x = f32[2,2]{1,0} parameter(0)\n"
                "  %fusion = f32[2,2]{1,0} fusion(%x), kind=kLoop, calls=%f\n"
                "  %dot.1 = f32[2,2]{1,0} dot(%x, %fusion), lhs_contracting_dims={1}\n"
                "  ROOT %tuple = (f32[2,2]{1,0}) tuple(%dot.1)\n}\n"
            )

    assert overhead.num_operations(Program()) == 2


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


@pytest.mark.parametrize("model", norms.models(quick=True), ids=["mlp", "decoder"])
def test_sides_of_the_norm_benchmark_agree(model):
    batch = model.x[:16], model.y[:16]
    found = {name: jax.jit(function)(model.params, batch) for name, function in norms.passes(model).items()}
    grads, lengths = found["gradient and norms, one pass"]
    chex.assert_trees_all_close(grads, found["gradient alone"], rtol=1e-3, atol=1e-6)
    for name in ("norms, vmap(grad) by 16", "norms, vmap(grad)"):
        np.testing.assert_allclose(lengths, found[name], rtol=1e-3)
    assert (found["last layer's norms, forward"] < lengths).all() and (found["last layer's norms, forward"] > 0).all()
    taken = norms.steps(model)
    start = taken.pop("start")
    for name, step in taken.items():
        params, history = jax.jit(step)(start(), jax.random.key(0))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a != b).any()), params, model.params)), name
        assert bool((history.values != 1).any()) == (name in ("rr", "last"))


def test_rejection_beside_the_tree():
    for skew in rejection.SKEWS:
        assert abs(rejection.scores_of(10**5, skew).mean() * skew - 1) < 0.05
    text, data = rejection.run(quick=True)
    assert "| by rejection, largest over mean 100 |" in text and "n = 10^3" in text
    assert set(data["n=1000 skew=2"]) == set(rejection.SIDES)
    assert min(row["low"] for sides in data.values() for row in sides.values()) > 0


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


def test_result_files(tmp_path):
    summary = timing.summarize([1.0, 2.0, 4.0])
    targets = [
        timing.Target("a", "at least 10 times", f"{summary} times", False),
        timing.Target("a", "at most 2 %", "+1 %", None),
    ]
    report = timing.Report("A title", timing.table(["side", "ms"], [("one", summary)]), {"ms": summary}, targets)
    command.write(tmp_path, {"CPU": "a CPU"}, {"a": report}, seconds=90.0, quick=False)
    text = (tmp_path / "RESULTS.md").read_text()
    assert (
        "| (a) | at least 10 times | 2 (1 to 4) times | **missed** |\n| (a) | at most 2 % | +1 % | undecided |" in text
    )
    assert "- CPU: a CPU" in text and "## (a) A title\n\n| side | ms |\n| --- | ---: |\n| one | 2 (1 to 4) |" in text
    assert "`python -m experiments.benchmarks a` in 1.5 minutes" in text
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["targets"][0]["holds"] is False and stored["a"] == {"ms": [2.0, 1.0, 4.0, 3]}
    command.write(tmp_path, {"CPU": "a CPU"}, {"a": report}, seconds=90.0, quick=True)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "its numbers mean nothing" in text and "missed" not in text


def test_the_machine_is_described():
    machine = timing.machine() | timing.versions()
    assert all(machine.values())
    assert ("not run on a GPU" in machine["JAX device"]) == (jax.default_backend() == "cpu")
    assert {"CPU", "memory", "caches", "OS", "load average at the start", "jax", "torch"} <= set(machine)


def test_unknown_benchmarks_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["z"])
    assert "no benchmark z; choose from a, b, c, d, e, f" in capsys.readouterr().err
