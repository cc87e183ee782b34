"""Tests the benchmark of the live mix: that loaders draw what they say, how they are measured, and the verdicts."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import live_mix, live_step, loaders, timing
from mixjax import live

NAMES = ["mixjax, arrays", "mixjax, memory maps", "plain loop over arrays", "mixjax, MapDatasets", "grain mix"]


@pytest.fixture
def path(tmp_path):
    # Each token names its row.
    np.repeat(np.arange(60, dtype=np.uint16), loaders.ROW_LENGTH).tofile(tmp_path / "rows.bin")
    return tmp_path / "rows.bin"


@pytest.mark.parametrize("name", NAMES)
def test_loaders_draw_rows_by_the_shares(name, path):
    batches, answer = loaders.build(str(path), name, 3, 40)
    rows = np.concatenate([next(batches) for _ in range(25)])
    assert (rows == rows[:, :1]).all()
    shares = np.random.default_rng(3).dirichlet(np.ones(3))
    drawn = np.bincount(rows[:, 0] // 20, minlength=3) / len(rows)
    # The live mix moves its weights by up to a quarter.
    assert np.abs(drawn - shares).max() < 0.08
    # In random order.
    assert not (np.diff(rows[:, 0].astype(int)) == 1).mean() > 0.2
    assert set(answer["versions"]) <= set(loaders.PACKAGES)


def test_processor_time_and_memory_are_those_of_the_children_too():
    work = "x = bytearray(50_000_000); sum(range(3_000_000)); print(flush=True); input(); sum(range(3_000_000))"
    before, most = loaders.processor_time(), loaders.memory()
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert child.pid in loaders.descendants()
        running = loaders.processor_time()
        assert loaders.memory() > most + 50
        child.communicate(b"\n")
    assert before + 0.02 < running < loaders.processor_time()
    assert child.pid not in loaders.descendants()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="stops and measures processes as Linux does")
def test_loaders_are_measured_in_turns_and_the_missing_are_named(path):
    peer = "torchdata weighted nodes"
    measured, missing, _ = live_mix.measure(path, ["plain loop over arrays", peer], (3,), (4, 8), 2, 0.001)
    assert set(measured) == {(3, 4), (3, 8)}
    for sides in measured.values():
        for values in sides["plain loop over arrays"].values():
            assert len(values) == 2 and min(values) > 0
    installed = all(importlib.util.find_spec(name) for name in ("torch", "torchdata"))
    assert installed or missing[peer] in ("torch", "torchdata")


def test_a_loader_that_ended_is_an_error(path):
    loader = live_mix.Loader(path, "no such loader")
    with pytest.raises(RuntimeError, match=r"a loader ended: .*no such loader"):
        loader.ask("build", 3, 4)
    loader.process.communicate()


def test_slow_loaders_are_left_out_of_larger_batches():
    measured = {(200, 256): {"slow": {"processor": [200.0, 210.0]}, "fast": {"processor": [100.0]}}}
    assert live_mix.too_slow("slow", 200, 4096, measured) and not live_mix.too_slow("fast", 200, 4096, measured)
    assert not live_mix.too_slow("slow", 4, 4096, measured)
    assert live_mix.too_slow("grain mix, 2 workers", 2000, 256, {})


def test_targets_of_the_live_mix():
    def sides(ours, grain, plain):
        names = {
            "mixjax, MapDatasets": ours,
            "grain mix": grain,
            "mixjax, arrays": ours,
            "plain loop over arrays": plain,
        }
        return {name: {"processor": [value] * 3} for name, value in names.items()}

    measured = {(4, 256): sides(2.0, 2.2, 1.1), (4, 4096): sides(2.0, 4.0, 4.0), (200, 256): sides(2.0, 8.0, 0.9)}
    alone = {(4, 256): [0.5, 0.6, 0.7], (2000, 256): [1.2, 0.9, 1.1]}
    few, many = timing.summarize([1.0, 2.0]), timing.summarize([11.0, 12.0])
    rows = live_mix.targets(measured, alone, few, many)
    verdicts = {row.statement.split(":")[0] + (" at D = 200" if "= 200" in row.statement else ""): row for row in rows}
    assert verdicts["mixjax, MapDatasets"].holds
    assert verdicts["mixjax, MapDatasets"].measured == "1.1 (1.1 to 1.1) times (D = 4, B = 256)"
    assert not verdicts["mixjax, MapDatasets at D = 200"].holds
    assert not verdicts["mixjax, arrays"].holds and "D = 200" in verdicts["mixjax, arrays"].measured
    assert verdicts["the plan alone"].measured == "1.1 (0.9 to 1.2) (D = 2000, B = 256)"
    assert [row.holds for row in rows[-3:]] == [False, True, False]
    assert not any("workers" in row.statement for row in rows)


def test_a_plan_is_timed_in_the_middle_of_a_run():
    plan, _ = live_step.started_plan(5, 8)
    assert plan.step > 10**6
    batch = next(plan)
    assert batch.counts.sum() == 8
    times = live_step.plan_times((5,), (8, 16), 2, quick=True)
    assert set(times) == {(5, 8), (5, 16)} and all(len(values) == 2 for values in times.values())


def test_a_state_far_into_a_run_is_a_state():
    plan = live.Plan([live_step.SIZE] * 5, 8, np.ones(5))
    plan.set_state(live_step.state_at(plan, 10**9, np.random.default_rng(0)))
    assert next(plan).step == 10**9
    assert live_step.restoring(True)["milliseconds"].median > 0


def test_a_training_step_is_fed_by_both():
    measured = live_step.training_step(True)
    assert len(measured["data"]["host_seconds"]) == 4
    assert all(len(values) == 2 for values in measured["data"]["seconds"].values())
