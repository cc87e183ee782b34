"""Fields that cannot be swept over are named."""

import dataclasses

import jax.numpy as jnp
import pytest

from mixjax.runner.axes import axes_are_numbers
from mixjax.runner.configs import ConfigError, load
from mixjax.runner.experiment import Experiment
from mixjax.runner.labels import parts_of
from mixjax.sweeps import Segments, Sweep, dry_run

MODULE = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 4
    gamma: float = 0.5
    hard: int = 0

def toy(config: Toy):
    ...
"""


def train(key, hparams, data):
    return {"x": hparams.get("gamma", 1.0) * jnp.ones(int(hparams.get("steps", 2)))}


def branching(key, hparams, data):
    return {"x": jnp.zeros(3) if hparams["hard"] else jnp.ones(3) * hparams["gamma"]}


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = f"axes_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(MODULE)

    def make(sweep):
        path = tmp_path / "toy.toml"
        path.write_text(f'experiment = "{module}:toy"\n[sweep]\n{sweep}')
        return load(path)

    return make


def experiment_of(train, **fields):
    return Experiment(train, None, {}, {}, {}, **fields)


def part_of(config):
    (part,) = parts_of(config, config.runs[0])
    return part


def check(config, experiment):
    with axes_are_numbers(config, experiment, part_of(config)):
        dry_run(Sweep(experiment.train, axes=config.sweep.axes, seeds=1))


def test_the_field_that_sets_a_shape_is_named(make):
    with pytest.raises(ConfigError, match=r"\[sweep\] steps: sets a shape, .* cannot be an axis; use \[\[run\]\]"):
        check(make("steps = [2, 3]\ngamma = [0.1, 0.2]"), experiment_of(train))
    check(make("gamma = [0.1, 0.2]"), experiment_of(train))


def test_the_field_that_takes_a_branch_is_named_in_segments_too(make):
    cut = Segments(lambda *args: branching(*args)["x"], lambda carry, hparams, data: (carry, {"x": carry}), 2)
    for each in (branching, cut):
        with pytest.raises(ConfigError, match=r"\[sweep\] hard: sets"):
            check(make("hard = [0, 1]\ngamma = [0.1, 0.2]"), experiment_of(each))


def test_other_errors_stay_what_they_are(make):
    def broken(key, hparams, data):
        raise TypeError("my own mistake")

    with pytest.raises(TypeError, match="my own mistake"):
        check(make("gamma = [0.1, 0.2]"), experiment_of(broken))
    config = make("gamma = [1.0]")
    own_points = dataclasses.replace(experiment_of(branching), points={"hard": [0, 1]})
    with pytest.raises(TypeError, match="traced array"), axes_are_numbers(config, own_points, part_of(config)):
        dry_run(Sweep(branching, seeds=1, axes={"gamma": [1.0]}, points={"hard": [0, 1]}))
