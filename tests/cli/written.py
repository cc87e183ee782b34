"""Small results for tests of commands, written by hand."""

import math

import numpy as np
import xarray as xr

CONFIG = """
experiment = "{module}:toy"
steps = 5
[[run]]
name = "MLP"
[[run]]
name = "CNN, wide"
width = 9
[sweep]
seeds = 4
"""
CLAIM = {
    "name": "erma_wins",
    "statement": "ERMA wins",
    "source": "ours",
    "value": 0.5,
    "stderr": 0.125,
    "threshold": 0.0,
    "num_seeds": 4,
    "holds": True,
    "note": "",
}
SEEDS = np.array([0.0, 1.0, 4.0, 2.0])  # what a seed adds to every loss  # what a seed adds to every loss
METHODS = {"sgd": np.zeros(4), "erma": np.array([-1.0, -1.0, 0.0, 1.0]), "va": np.array([2.0, 1.0, 2.0, 3.0])}
LOWER = ("--metric", "loss", "--better", "lower")


def loss(methods=METHODS, gammas=(0.1, math.inf), steps=(10, 20), units="nats", first_seed=0):
    """[gamma, seed, method, step]: the seed's own, the method's, 10 more for each gamma, and 100 less for each step."""
    table = SEEDS[:, None] + np.stack(list(methods.values()), 1)
    values = (
        table[None, :, :, None] + 10.0 * np.arange(len(gammas))[:, None, None, None] - 100.0 * np.arange(len(steps))
    )
    coords = {"gamma": list(gammas), "seed": np.arange(4) + first_seed, "method": list(methods), "step": list(steps)}
    return xr.DataArray(values.astype(np.float32), coords, ("gamma", "seed", "method", "step"), attrs={"units": units})


def dataset(**variables):
    attrs = {"num_runs": 8, "num_computed": 8, "compile_seconds": 1.5, "run_seconds": 3.0}
    return xr.Dataset(variables, attrs=attrs)
