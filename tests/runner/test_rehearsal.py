"""What would fail after the runs is told before the first one, and what would not is left alone."""

import sys

import jax.numpy as jnp
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pytest

from mixjax.runner import experiment
from mixjax.runner.configs import load
from mixjax.runner.experiment import Experiment
from mixjax.runner.rehearsal import RehearsalError, made_up, outline, rehearse
from mixjax.sweeps import HostLoop, Segments, Sweep, loop
from mixjax.sweeps.prepared import Prepared

MODULE = """
import dataclasses
import jax.numpy as jnp
import matplotlib.figure
from mixjax.runner.experiment import Experiment
from mixjax.sweeps import HostLoop

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 4
    rate: float = 0.5
    method: str = "a"
    fail: str = ""

def toy(config: Toy) -> Experiment:
    def train(key, hparams, data):
        return {"error": jnp.arange(config.steps) * dataclasses.replace(config, **hparams).rate}

    def figure(results):
        for dataset in results.values():
            dataset.error.isel(step=9 if config.fail == "figure" else 0)
        return matplotlib.figure.Figure()

    def claims(results):
        return results["missing" if config.fail == "claims" else next(iter(results))] and []

    def summary(results):
        return undefined if config.fail == "summary" else "a table"

    return Experiment(train, dims={"error": ("step",)}, coords={"step": range(config.steps)},
                      figure=figure, claims=claims, summary=summary, is_rehearsed=config.fail != "later")

def host(config: Toy) -> Experiment:
    made = toy(config)
    return dataclasses.replace(made, train=HostLoop(lambda run: {"error": [run.hparams["rate"]] * config.steps}))
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    module = f"mod_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def config(*overrides, function="toy"):
        text = f'experiment = "{module}:{function}"\n[[run]]\nname = "one"\n[[run]]\nname = "two"\n[sweep]\nseeds = 2\n'
        (tmp_path / "toy.toml").write_text(text + "rate = [0.5, 1.0]\n")
        return load("toy.toml", overrides)

    return config


@pytest.fixture
def no_runs(monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *_, **__: pytest.fail("a run was begun"))


@pytest.mark.parametrize("function", ["toy", "host"])
@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("figure", r"the figure would fail after all runs.*IndexError: .* \(mod_.*py, line 21\); nothing was run"),
        ("claims", r"the claims would fail after all runs.*KeyError: 'missing' \(mod_.*py, line 25\)"),
        ("summary", "the summary would fail .*NameError: name 'undefined' is not defined"),
    ],
)
def test_what_would_fail_at_the_end_fails_before_the_first_run(config, no_runs, function, fail, said, tmp_path):
    with pytest.raises(RehearsalError, match=said):
        experiment.run(config(f"fail={fail}", function=function))
    if function == "toy":
        with pytest.raises(RehearsalError, match=said):
            experiment.dry_run(config(f"fail={fail}"))
    assert not list(tmp_path.glob("results*"))


def test_an_experiment_may_decline(config):
    experiment.dry_run(config("fail=later"))


def test_the_first_experiment_is_made_once_more_only_to_be_run(config, monkeypatch):
    made, make = [], experiment._sweep_of
    monkeypatch.setattr(
        experiment, "_sweep_of", lambda config, part, *rest: made.append(part.title) or make(config, part, *rest)
    )
    experiment.run(config('sweep.method=["a", "b"]'))
    assert made == [
        "two, method=b",
        "two, method=a",
        "one, method=b",
        "one, method=a",
        "one, method=b",
        "two, method=a",
        "two, method=b",
    ]


def segments():
    return Segments(
        lambda key, hparams, data: jnp.zeros(3),
        lambda carry, hparams, data: (carry, {"x": jnp.zeros((2, 3)), "n": jnp.zeros(2, jnp.int32)}),
        num=4,
        finish=lambda carry, hparams, data: {"end": jnp.zeros((), jnp.bfloat16)},
    )


@pytest.mark.parametrize("fill", ["random", "zeros", "ones"])
def test_made_up_results_are_like_the_real_ones_but_for_their_numbers(fill):
    made = Experiment(segments(), dims={"x": ("step", "method")}, coords={"method": list("abc")}, units={"x": "nats"})
    spec = Sweep(
        made.train,
        seeds=2,
        axes={"rule": ["p", "q"]},
        points={"share": [[0.5, 0.5], [1.0, 0.0]]},
        dims=made.dims,
        coords=made.coords,
    )
    real, found = loop.run(spec), made_up(outline(made, spec, Prepared.of(spec)), fill)
    assert found.sizes == real.sizes and list(found.coords) == list(real.coords) and set(found.attrs) == set(real.attrs)
    for name in real:
        assert (found[name].dims, found[name].dtype) == (real[name].dims, real[name].dtype)
    for name in real.coords:
        np.testing.assert_array_equal(found[name], real[name])
    assert found.x.attrs == {"units": "nats"}
    assert fill == "random" or (found.x == (fill == "ones")).all()


def test_results_that_would_be_large_are_made_up_for_fewer_seeds():
    spec = Sweep(lambda key, hparams, data: {"x": jnp.zeros(1000)}, seeds=10**6, axes={"a": [1, 2]})
    made = Experiment(spec.train)
    assert made_up(outline(made, spec, Prepared.of(spec)), "zeros").sizes == {"a": 2, "seed": 500, "x_0": 1000}


def test_shapes_of_an_ordinary_loop_are_known_by_its_coordinates():
    made = Experiment(HostLoop(len), dims={"x": ("step",)}, coords={"step": range(5)})
    spec = Sweep(made.train, seeds=2)
    assert made_up(outline(made, spec, None), "ones").x.shape == (2, 5)
    for unknown in (Experiment(HostLoop(len)), Experiment(HostLoop(len), dims={"x": ("step",)})):
        assert outline(unknown, spec, None).shapes is None


def results(fill):
    made = Experiment(segments())
    spec = Sweep(made.train, seeds=2)
    return {"run": made_up(outline(made, spec, Prepared.of(spec)), fill)}


def test_what_depends_on_the_numbers_is_no_mistake_of_the_experiment(capsys):
    def claims(results):
        x = results["run"].x.values
        if not (x == 1).all():  # a fit that only real numbers let converge
            raise RuntimeError("no convergence")
        np.log(x - 1)
        return []

    rehearse(Experiment(segments(), figure=lambda results: matplotlib.figure.Figure(), claims=claims), results)
    assert capsys.readouterr() == ("", "")


def test_no_figure_stays_open():
    # Other tests may have left some.
    before = plt.get_fignums()

    def figure(results):
        plt.figure()
        raise KeyError("x")

    with pytest.raises(RehearsalError, match="KeyError: 'x'"):
        rehearse(Experiment(segments(), figure=figure), results)
    with pytest.raises(RehearsalError, match="figure must be a matplotlib Figure, got NoneType"):
        rehearse(Experiment(segments(), figure=lambda results: None), results)
    rehearse(Experiment(segments(), figure=lambda results: plt.figure()), results)
    assert plt.get_fignums() == before


def test_what_takes_long_is_the_last_that_is_tried(monkeypatch):
    monkeypatch.setattr("mixjax.runner.rehearsal._SECONDS", -1.0)
    rehearse(Experiment(segments(), figure=lambda results: 1 / 0), results)
