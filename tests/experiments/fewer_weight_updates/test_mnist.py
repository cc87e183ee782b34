"""The experiment on MNIST's domains: what it refuses, and what its config's runs return."""

from pathlib import Path

import pytest

import mixjax.data
from experiments.fewer_weight_updates import mnist
from experiments.fewer_weight_updates.mnist_methods import Mnist
from mixjax.runner import configs
from tests.experiments.fewer_weight_updates.made_up_mnist import fake_images

CONFIG = Path(__file__).parents[3] / "configs" / "fewer_weight_updates" / "mnist.toml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (10, 10)}, r"sizes must be one for each of noisy, skewed, swapped, got \(10, 10\)."),
        ({"num_steps": 512}, r"num_steps = 512 leave no whole round at equal compute for \['T=256'\]."),
    ],
)
def test_mnist_refuses(change, message, data, monkeypatch):
    monkeypatch.setattr(mnist, "load", lambda: data)
    monkeypatch.setattr(mnist, "horizon", lambda config, data: 4)
    with pytest.raises(ValueError, match=message):
        mnist.mnist(Mnist(validation=20, **change))


def test_the_config_has_all_methods_and_points(monkeypatch):
    monkeypatch.setattr(mixjax.data, "load", fake_images)
    monkeypatch.setattr(mnist, "horizon", lambda config, data: 61)
    config = configs.load(CONFIG)
    assert config.sweep.first_seed >= 1000 and config.sweep.seeds >= 10
    assert ["clean" in run.values.domains for run in config.runs] == [False, True, False, True]
    made = mnist.mnist(config.runs[1].values)
    sizes = {dim: len(labels) for dim, labels in made.coords.items()}
    assert sizes == {"method": 15, "budget": 2, "domain": 4, "point": 56}
    # The rehearsal makes results up for metrics all of whose dimensions have labels.
    assert all(dim in sizes for dims in made.dims.values() for dim in dims)
    assert set(made.units) <= set(made.dims)
