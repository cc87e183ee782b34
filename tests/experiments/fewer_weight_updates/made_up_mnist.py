"""Images and results in place of MNIST's."""

import numpy as np
import xarray

import mixjax.data
from experiments.fewer_weight_updates import mnist_methods
from experiments.fewer_weight_updates.mnist_methods import Mnist

DOMAINS = ("noisy", "skewed", "swapped", "clean")
SMALL = Mnist(domains=DOMAINS, sizes=(300, 60, 90, 40), validation=50)


def fake_images(name="mnist"):
    """Ten noisy patterns, 1,200 training and 100 test images."""
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 784))
    labels = [np.arange(size, dtype=np.int32) % 10 for size in (1200, 100)]
    images = [(patterns[y] + 0.2 * rng.standard_normal((len(y), 784))).clip(0, 1).astype(np.float32) for y in labels]
    return mixjax.data.Images(images[0], labels[0], images[1], labels[1], (28, 28), 10, "a test")


def made_up(accuracy, loss, grid_loss, seeds=4):
    """Results by method: the same for every seed but for noise, weights that did not move at the end."""
    names = list(mnist_methods.methods(Mnist(), 40))
    noise = np.random.default_rng(0).normal(0, 1e-3, (seeds, len(names), 2))
    shape, share = (seeds, len(names), 2, 3), np.array([0.5, 0.3, 0.2])
    T = [method.T for method in mnist_methods.methods(Mnist(), 40).values()]
    variables = {
        "accuracy": (("seed", "method", "budget"), np.array([accuracy(n) for n in names])[:, None] + noise),
        "validation_loss": (("seed", "method", "budget"), np.array([loss(n) for n in names])[:, None] + noise),
        "weights": (("seed", "method", "budget", "domain"), np.broadcast_to(share, shape)),
        "mean_weights": (("seed", "method", "budget", "domain"), np.broadcast_to(share, shape)),
        "steps": (("seed", "method", "budget"), np.full((seeds, len(names), 2), 2048)),
        "T": (("seed", "method"), np.tile(T, (seeds, 1))),
        "retrained_accuracy": (("seed", "method"), np.array([accuracy(n) for n in names]) + noise[..., 0]),
        "validation_alone_accuracy": (("seed",), 70.0 + noise[:, 0, 0]),
        "grid_accuracy": (("seed", "point"), np.full((seeds, 2), 60.0)),
        "grid_validation_loss": (("seed", "point"), np.array([grid_loss + 1.0, grid_loss]) + noise[:, 0]),
    }
    coords = {"method": names, "budget": ["compute", "updates"], "domain": ["noisy", "skewed", "swapped"]}
    return xarray.Dataset(variables, coords | {"seed": range(seeds), "point": ["1 0 0", "0.4 0.6 0"]})


def long_horizons_win(name):
    return 80.0 if name in ("T=16", "T=64", "auto") else 60.0 if name != "uniform" else 50.0


def long_horizons_lose(name):
    return 40.0 if name in ("T=16", "auto", "alignment T=16") else 45.0 if name != "uniform" else 50.0
