"""The benchmark of a swarm: its sides train the same runs, and its report is whole."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import proxies, pytorch, swarm, timing, torch_proxies

QUICK = {proxy.kind: proxy for proxy in proxies.proxies(True)}


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch):
    """Reads no real text: a thousand bytes of each domain."""
    made = np.random.default_rng(0).integers(0, 256, (2, 3, 1000), np.uint8)
    monkeypatch.setattr(proxies, "corpus", lambda: {"train": made[0], "test": made[1]})
    proxies.texts.cache_clear()
    swarm._inputs.cache_clear()
    yield
    proxies.texts.cache_clear()
    swarm._inputs.cache_clear()


@pytest.mark.parametrize("kind", QUICK)
def test_loops_and_sweeps_train_the_same_runs(kind):
    proxy = QUICK[kind]
    expected = np.stack([result["losses"] for result in proxies.loop(proxy, proxies.mixtures(3))])
    for vectorize in (None, 2):
        losses = proxies.sweep(proxy, 3, vectorize=vectorize).losses.values[:, 0]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
    # Runs of other mixtures are other runs.
    assert len({tuple(row) for row in expected.tolist()}) == 3


@pytest.mark.parametrize("kind", QUICK)
def test_pytorch_trains_the_same_runs(kind):
    pytest.importorskip("torch")
    assert max(swarm.check_equal(QUICK[kind]).values()) < 1e-4


def test_windows_are_drawn_by_the_mixture():
    proxy = QUICK["bytes"]
    _, _, starts = proxy.start(jax.random.key(0), jnp.array([0.5, 0.0, 0.5]), 1000)
    assert starts.shape == (proxy.num_steps, proxy.batch)
    assert not np.any(np.asarray(starts) // 1000 == 1)
    # A window ends within its domain.
    assert np.all(np.asarray(starts) % 1000 + proxy.length < 1000)


def test_parameters_have_names():
    ((named, starts),) = torch_proxies.inputs(QUICK["decoder"], proxies.mixtures(1))
    assert {"tokens.embedding", "blocks.0.norms.1.scale", "blocks.0.qkv.kernel", "out.bias"} <= named.keys()
    assert starts.dtype == np.int64


def test_the_report_names_the_best_rival(monkeypatch):
    calls = []

    @contextlib.contextmanager
    def crew(cores, devices, quick):
        yield lambda function, *arguments: [function(*arguments)] * len(cores)

    def record(name, result=None):
        def call(proxy, *arguments):
            calls.append((name, *arguments))
            return result

        return call

    attrs = {"vectorize": 4, "compile_seconds": 1.0, "run_seconds": 2.0, "num_runs": 8}
    monkeypatch.setattr(pytorch, "load", lambda: None)
    monkeypatch.setattr(swarm, "crew", crew)
    monkeypatch.setattr(swarm, "check_equal", lambda proxy: {"loop": 1e-6})
    monkeypatch.setattr(swarm, "swept", record("sweep", attrs))
    monkeypatch.setattr(swarm, "looped", record("loop"))
    monkeypatch.setattr(swarm, "in_torch", record("torch"))
    report = swarm.run(quick=True)
    assert isinstance(report, timing.Report) and len(report.targets) == 2
    for proxy in proxies.proxies(True):
        found = report.data[proxy.name]
        assert found["best rival"] in swarm.RIVALS and found["ours"].startswith("sweep")
        assert set(swarm.RIVALS) < set(found["runs_a_minute"])
    # Once measured, the number is given: a turn is the sweep alone.
    assert ("sweep", 2, 4) in calls and ("torch", 2, True) in calls and "chose 4 at once" in report.text


def test_without_pytorch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs torch: pip install .*torch"):
        swarm.run(quick=True)
