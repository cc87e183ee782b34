"""Experiments: from a config to a result on disk, and claims against numbers computed by hand."""

import dataclasses
import gc
import json
import os
import signal
import sys
import time
import tomllib

import jax
import numpy as np
import pytest
import xarray as xr

from mixjax.runner import experiment, results, watching
from mixjax.runner.claims import paired, versus
from mixjax.runner.configs import ConfigError, load
from mixjax.runner.experiment import ReportError
from mixjax.stopping import Preempted, is_preempted, preemptible
from mixjax.sweeps import checkpoints, loop
from mixjax.sweeps.programs import Program
from mixjax.sweeps.saving import pauses

MODULE = """
import dataclasses
import jax, jax.numpy as jnp
import matplotlib.figure
import numpy as np
from mixjax.sweeps import HostLoop
from mixjax.runner.claims import paired
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 4
    gamma: float = 0.5
    scales: tuple[float, ...] = (1.0, 2.0)
    fail: str = ""

def toy(config: Toy) -> Experiment:
    def train(key, hparams, data):
        cfg = dataclasses.replace(config, **hparams)
        noise = jax.random.normal(key)
        error = jnp.outer(jnp.asarray(cfg.scales), cfg.gamma ** jnp.arange(cfg.steps)) * data + noise
        return {"error": error, "last": error[:, -1]}

    def figure(results):
        if "figure" in config.fail:
            raise RuntimeError("no paint")
        drawn = matplotlib.figure.Figure()
        axes = drawn.subplots()
        for name, dataset in results.items():
            axes.plot(dataset.step, dataset.error.mean("seed").isel(method=0).values.reshape(-1, config.steps)[0])
        return drawn

    def claims(results):
        if "claims" in config.fail:
            raise RuntimeError("no words")
        last = next(iter(results.values())).isel(step=-1).error
        last = last.isel({d: 0 for d in last.dims if d not in ("method", "seed")})
        a, b = last.sel({"method": "a"}), last.sel({"method": "b"})
        return [paired("a-below-b", a, "<", b, statement="a is below b", source="ours")]

    def summary(results):
        if "summary" in config.fail:
            raise RuntimeError("no table")
        if "no text" in config.fail:
            return 5
        return f"| {len(results)} in all |"

    return Experiment(train, jnp.float32(2.0), {"error": ("method", "step"), "last": ("method",)},
                      {"method": ["a", "b"], "step": range(config.steps)}, {"error": "nats"}, figure, claims,
                      summary=summary, is_rehearsed=not config.fail)

def loop(config: Toy) -> Experiment:
    def train(run):
        (run.files / "ledger.jsonl").write_text(f"{run.hparams['gamma']}")
        return {"error": run.hparams["gamma"] ** np.arange(config.steps), "last": float(run.seed)}

    return Experiment(HostLoop(train), dims={"error": ("step",)}, units={"error": "nats"})

def nothing(config: Toy):
    return None
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def make(text="", *overrides, function="toy"):
        (tmp_path / "toy.toml").write_text(f'experiment = "{module}:{function}"\n{text}')
        return load("toy.toml", overrides)

    return make


@pytest.fixture
def save_always():
    with pauses(longest=0.0):
        yield


TEXT = """
[[run]]
name = "flat"
[[run]]
name = "steep"
scales = [1.0, 100.0]
[sweep]
seeds = 3
first_seed = 7
gamma = [0.5, 0.25]
"""


def test_run(make, tmp_path):
    calls = []
    path = experiment.run(make(TEXT, "sweep.chunk=2"), callback=lambda *args: calls.append(args))
    assert path == tmp_path / "results" / "toy"
    read = results.read(path)
    assert list(read) == ["flat", "steep"]
    error = read["flat"].error
    assert error.dims == ("gamma", "seed", "method", "step") and error.attrs["units"] == "nats"
    assert error.seed.values.tolist() == [7, 8, 9]
    noiseless = (error - error.isel(method=0, step=0) + 2.0).isel(seed=0, method=1)
    np.testing.assert_allclose(noiseless, [4.0 * 0.5 ** np.arange(4), 4.0 * 0.25 ** np.arange(4)], rtol=1e-4)
    assert (read["steep"].error.sel({"method": "b", "step": 0}) > 100).all()
    assert calls == [(name, done, 6) for name in ("flat", "steep") for done in (0, 2, 4, 6)]
    (row,) = json.loads((path / "claims.json").read_text())
    assert row["holds"] is True and row["num_seeds"] == 3 and row["value"] == pytest.approx(-0.25, abs=1e-5)
    assert (path / "figure.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (path / "progress.jsonl").read_text().splitlines()]
    assert [(line["run"], line["done"]) for line in lines] == [(n, d) for n in ("flat", "steep") for d in (2, 4, 6)]
    last = read["flat"].error.isel(gamma=0, seed=slice(2), step=-1).mean()
    assert lines[0]["metrics"]["error"] == pytest.approx(float(last))


def test_an_ordinary_loop_is_run_and_its_files_come_with_the_result(make, tmp_path):
    calls = []
    path = experiment.run(make(TEXT, function="loop"), callback=lambda *args: calls.append(args))
    read = results.read(path)
    error = read["steep"].error
    assert error.dims == ("gamma", "seed", "step") and error.attrs["units"] == "nats"
    np.testing.assert_array_equal(error.isel(seed=0), np.array([[0.5], [0.25]]) ** np.arange(4))
    assert calls[-1] == ("steep", 6, 6)
    kept = sorted(file.relative_to(path).as_posix() for file in path.rglob("ledger.jsonl"))
    assert len(kept) == 12 and kept[0] == "files/0_flat/gamma=0.25,seed=7/ledger.jsonl"
    # The result may be written again over the old one.
    again = experiment.run(make(TEXT, function="loop"))
    assert again == path and not path.with_name("toy.chunks").exists()


def test_running_the_resolved_config_again_gives_the_same_result(make, tmp_path):
    first = experiment.run(make(TEXT, "steps=5"))
    again = experiment.run(load(first / "config.toml"), out="again")
    one, two = results.read(first), results.read(again)
    for name in one:
        for metric in one[name].data_vars:
            xr.testing.assert_equal(one[name][metric], two[name][metric])
    assert (first / "config.toml").read_text().splitlines()[1:] == (again / "config.toml").read_text().splitlines()[1:]
    assert tomllib.loads((first / "config.toml").read_text())["steps"] == 5
    assert load(first / "config.toml").name == "toy"


@pytest.mark.parametrize("fail", ["figure", "claims", "figure and claims", "summary"])
def test_metrics_survive_a_failing_figure_claims_or_summary(make, tmp_path, fail):
    whole = experiment.run(make())
    before = {p.name: p.read_bytes() for p in whole.iterdir()}
    with pytest.raises(ReportError, match=r"failed; the metrics are kept in .*toy\.partial") as error:
        experiment.run(make(f"fail = '{fail}'"))
    assert error.value.path == tmp_path / "results" / "toy.partial"
    assert list(error.value.failures) == fail.split(" and ")
    assert results.read(error.value.path)["run"].error.shape == (1, 2, 4)
    text = (error.value.path / "report.md").read_text()
    assert f"**The {fail.split()[-1]} failed**" in text and any(
        said in text for said in ("no words", "no paint", "no table")
    )
    assert ("| 1 in all |" in text) == (fail != "summary")
    assert (error.value.path / "figure.png").exists() == ("figure" not in fail)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == before  # the whole result stays


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_goes_on_where_it_stopped(make, tmp_path, monkeypatch, save_always, error):
    whole = results.read(experiment.run(make(TEXT, "sweep.chunk=2"), out="whole"))

    def stop(name, done, total):
        if name == "steep" and done == 4:
            raise error

    with pytest.raises(error):
        experiment.run(make(TEXT, "sweep.chunk=2"), callback=stop)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["toy.chunks"]
    computed, call = [], Program.run
    monkeypatch.setattr(Program, "run", lambda *arguments: computed.append(1) or call(*arguments))
    again = results.read(experiment.run(make(TEXT, "sweep.chunk=2")))
    assert len(computed) == 1  # the last chunk of the second run: the first one was finished
    for name in whole:
        for metric in whole[name].data_vars:
            np.testing.assert_array_equal(again[name][metric], whole[name][metric])
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["toy"]
    records = [json.loads(line) for line in (tmp_path / "results/toy/progress.jsonl").read_text().splitlines()]
    assert [r["done"] for r in records] == [2, 4, 6, 2, 6]  # stopped before the record of 4


def test_a_signal_in_the_last_chunk_ends_a_run_as_usual_and_an_earlier_one_before_the_next_data(make, tmp_path):
    """Figure and report are still written; the data of the run that comes next are not read."""
    made = []

    def preempt(at):
        def callback(name, done, total):
            if (name, done) == (at, total):
                os.kill(os.getpid(), signal.SIGTERM)
                while not is_preempted():
                    time.sleep(0.001)

        return callback

    with preemptible():
        path = experiment.run(make(TEXT), callback=preempt("steep"), out="whole")
    assert (path / "figure.png").exists() and (path / "report.md").exists()
    with preemptible(), pytest.raises(Preempted):
        experiment.run(make(TEXT), out="left")
    config = make(TEXT)
    config = dataclasses.replace(config, function=lambda values: made.append(values) or make(TEXT).function(values))
    with preemptible(), pytest.raises(Preempted):
        experiment.run(config, callback=preempt("flat"))
    # Both were made before the first run. The second one would be made again when it begins.
    assert len(made) == 2


SHARING = """
import dataclasses, gc, weakref
import jax
import numpy as np
from mixjax.runner.experiment import Experiment
from mixjax.runner.loading import load_once

LOADED, REFS = [], {}

@dataclasses.dataclass(frozen=True)
class Toy:
    table: str = "a"
    steps: int = 1

@load_once
def load(table):
    # JAX lets go of arrays that it was given when it is next called.
    jax.block_until_ready(jax.jit(lambda x: x + 1)(0.0))
    gc.collect()
    LOADED.append((table, [name for name, ref in REFS.items() if ref() is not None]))
    value = np.full(3, 1.0, np.float32)
    REFS[table] = weakref.ref(value)
    return value

def toy(config: Toy) -> Experiment:
    return Experiment(lambda key, hparams, data: {"x": data * config.steps}, data=load(config.table))
"""


@pytest.mark.parametrize("dry", [False, True])
def test_runs_on_equal_data_share_them_and_no_others_are_in_memory_beside_them(make, tmp_path, dry):
    name = f"shared_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SHARING)
    tables = "".join(
        f'[[run]]\nname = "{number}"\ntable = "{table}"\nsteps = {number}\n' for number, table in enumerate("aabb")
    )
    (tmp_path / "toy.toml").write_text(f'experiment = "{name}:toy"\n{tables}[sweep]\nseeds = 1\n')
    config = load("toy.toml")
    if dry:
        experiment.dry_run(config)
    else:
        experiment.run(config)
    module = sys.modules[name]
    # Tried from the last run to the first, and run from the first to the last.
    assert module.LOADED == [("b", []), ("a", []), ("b", [])]
    gc.collect()
    assert not any(ref() is not None for ref in module.REFS.values())


def test_a_changed_config_does_not_go_on_and_says_what_changed(make):
    def stop(name, done, total):
        if name == "steep":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(make(TEXT), callback=stop)
    # Who watches reads what is done and what is to come.
    seen = watching.view("results/toy")
    first, second = seen.parts
    assert (first.name, first.total, first.done) == ("flat", 6, 6) and second.name == "steep"
    with pytest.raises(
        checkpoints.ChangedError,
        match=r"toy\.chunks/run_000 holds .* config\.steps: 4, now 5; seeds: 3, now 4; .*program",
    ):
        experiment.run(make(TEXT, "sweep.seeds=4", "steps=5"))


def test_a_failed_figure_costs_no_second_run(make, monkeypatch):
    with pytest.raises(ReportError):
        experiment.run(make("fail = 'figure'"))
    monkeypatch.setattr(Program, "run", lambda *arguments: pytest.fail("ran again"))
    with pytest.raises(ReportError):
        experiment.run(make("fail = 'figure'"))


@pytest.mark.parametrize("setting", ["chunk=1", "vectorize='vmap'"])
@pytest.mark.parametrize("call", [experiment.run, experiment.dry_run])
def test_a_setting_of_programs_is_refused_for_an_ordinary_loop_also_when_tried(make, call, setting):
    config = make("[sweep]\ngamma = [0.5]\n", f"sweep.{setting}", function="loop")
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"toy\.toml: \[sweep\] {name} has no meaning .*: leave it out, got"):
        call(config)


def test_mistakes_are_found_before_the_runs(make, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *args, **kwargs: pytest.fail("ran"))
    with pytest.raises(ConfigError, match="holds 'mod_"):
        experiment.run(make(), out=tmp_path)
    with pytest.raises(TypeError, match="must return an Experiment, got NoneType"):
        experiment.run(make(function="nothing"))


def claim(helper, *args, **kwargs):
    return helper("name", *args, statement="statement", source="source", **kwargs)


def test_claim_errors():
    with pytest.raises(ValueError, match=r"one value for each seed, got shapes \(2,\) and \(3,\)"):
        claim(paired, [1.0, 2.0], ">", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"one-dimensional, one for each seed, got shape \(1, 2\)"):
        claim(versus, [[1.0, 2.0]], ">=", 0.0)
    with pytest.raises(ValueError, match="side must be '>=' or '<=', got '>'"):
        claim(versus, [1.0], ">", 0.0)
    with pytest.raises(ValueError, match="side must be '>' or '<', got '>='"):
        claim(paired, [1.0], ">=", [0.0])


LABELLED = """
import dataclasses
import jax, jax.numpy as jnp
from typing import Literal
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

@dataclasses.dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"] = "a"

@dataclasses.dataclass(frozen=True)
class Toy:
    method: str = "sgd"
    gamma: float = 1.0
    mixture: tuple[float, ...] = (1.0, 0.0)
    inner: Inner = Inner()
    width: int = 2

def toy(config: Toy) -> Experiment:
    scale = {"sgd": 1.0, "erma": 10.0, "va": 100.0}[config.method]

    def train(key, hparams, data):
        cfg = configs.replace(config, hparams)
        assert isinstance(cfg.method, str) and isinstance(cfg.inner.kind, str)
        positions = jnp.float32(hparams.get("method", 0)) + 0.5 * hparams.get("inner.kind", 0)
        kind = {"a": 1.0, "b": 2.0}[cfg.inner.kind]
        shares = jnp.asarray(cfg.mixture) @ jnp.arange(1.0, 3.0)
        value = data * scale * kind * cfg.gamma * shares + jax.random.normal(key) * jnp.ones(cfg.width)[0]
        return {"value": value, "position": positions}

    return Experiment(train, 2.0)
"""
SCALES = {"sgd": 1.0, "erma": 10.0, "va": 100.0}


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(LABELLED)

    def run(text, *overrides):
        (tmp_path / "toy.toml").write_text(f'experiment = "{module}:toy"\n{text}')
        return results.read(experiment.run(load("toy.toml", overrides)))

    return run


NOISE = [float(jax.random.normal(jax.random.key(seed))) for seed in range(2)]


def test_labels_are_axes(labelled):
    text = "[sweep]\nseeds = 2\ngamma = [0.5, 2.0]\nmethod = ['va', 'sgd']\ninner.kind = ['b', 'a']\n"
    data = labelled(text)["run"]
    assert data.value.dims == ("gamma", "method", "inner.kind", "seed") and data.attrs["num_runs"] == 16
    assert data["method"].values.tolist() == ["va", "sgd"] and data["inner.kind"].values.tolist() == ["b", "a"]
    for gamma in (0.5, 2.0):
        for method in ("va", "sgd"):
            for kind, factor in (("a", 1.0), ("b", 2.0)):
                cell = data.value.sel({"gamma": gamma, "method": method, "inner.kind": kind})
                np.testing.assert_allclose(cell, 2 * gamma * SCALES[method] * factor + np.array(NOISE), rtol=1e-5)
    # Positions count the labels of a Literal in its own order, and others as they stand in the axis.
    np.testing.assert_array_equal(data.position.isel(gamma=0, seed=0), [[0.5, 0.0], [1.5, 1.0]])
    again = labelled(text.replace("gamma = [0.5, 2.0]\n", ""), "sweep.gamma=[0.5, 2.0]")["run"]
    assert again.value.transpose(*data.value.dims).equals(data.value)


def test_labels_in_points_keep_their_places(labelled):
    text = "[sweep]\nseeds = 2\n[sweep.points]\nmethod = ['erma', 'sgd', 'erma']\ngamma = [1.0, 2.0, 3.0]\n"
    data = labelled(text)["run"]
    assert data.value.dims == ("point", "seed") and data.point.values.tolist() == [0, 1, 2]
    assert data["method"].values.tolist() == ["erma", "sgd", "erma"] and data.gamma.values.tolist() == [1, 2, 3]
    np.testing.assert_allclose(data.value.values, np.array([[20.0], [4.0], [60.0]]) + NOISE, rtol=1e-5)


def test_labels_and_vectors_go_with_run_tables(labelled, tmp_path):
    text = "[[run]]\nname = 'narrow'\n[[run]]\nname = 'wide'\nwidth = 5\n[sweep]\nseeds = 2\n"
    found = labelled(text + "method = ['sgd', 'erma']\nmixture = [[0.5, 0.5], [0.0, 1.0]]")
    for name in ("narrow", "wide"):
        value = found[name].value
        assert value.dims == ("method", "mixture", "seed")
        np.testing.assert_allclose(value.values, np.array([[[3.0], [4.0]], [[30.0], [40.0]]]) + NOISE, rtol=1e-5)
        np.testing.assert_array_equal(found[name].mixture, [[0.5, 0.5], [0.0, 1.0]])
        np.testing.assert_allclose(
            value.sel({"method": "sgd", "mixture_label": "[0.0, 1.0]"}), np.add(4, NOISE), rtol=1e-5
        )
    assert json.loads((tmp_path / "results/toy/claims.json").read_text()) == []
    assert (tmp_path / "results/toy/figure.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_of_labels_is_counted_whole(labelled, tmp_path):
    labelled("sweep.method = ['sgd', 'erma', 'va']\nsweep.seeds = 2")
    calls = []
    config = load(tmp_path / "toy.toml")
    experiment.run(config, callback=lambda *args: calls.append(args))
    assert calls[0] == ("run", 0, 6) and calls[-1] == ("run", 6, 6)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert list(experiment.dry_run(config)) == [f"run, method={name}" for name in SCALES]


def test_a_mistake_in_a_later_run_is_found_before_the_first_one(labelled, monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *args, **kwargs: pytest.fail("ran"))
    with pytest.raises(KeyError, match="adam"):
        labelled("sweep.method = ['sgd', 'adam']")
    with pytest.raises((TypeError, ValueError)):
        labelled("[[run]]\nname = 'a'\n[[run]]\nname = 'b'\nwidth = -1")


def test_metrics_survive_a_summary_that_is_no_text(make):
    with pytest.raises(ReportError) as error:
        experiment.run(make("fail = 'no text'"))
    assert "summary must be a text, got int" in error.value.failures["summary"]
    assert results.read(error.value.path)["run"].error.shape == (1, 2, 4)


def test_seeds_of_points_differ_over_labels_too(make):
    """Each label is a sweep of its own, and its runs' seeds go on where those of the label before ended."""
    text = "[sweep]\nseeds = 2\nfirst_seed = 7\npaired = false\ngamma = [0.5, 0.25]\n"
    config = make(text)
    assert config.sweep.paired is False and "paired = false" in config.to_toml()
    part = experiment.parts_of(config, config.runs[0])[0]
    assert experiment._sweep_of(config, part)[1].first_seed == 7
    assert experiment._sweep_of(config, part, 4)[1].first_seed == 11
    paired = make(text.replace("false", "true"))
    assert experiment._sweep_of(paired, part, 4)[1].first_seed == 7
    with pytest.raises(ConfigError, match="seeds must be below"):
        make(text.replace("first_seed = 7", "first_seed = 4294967293"))
