"""Small results for tests, written by hand."""

import math

import numpy as np
import xarray as xr

from mixjax.runner import results

ROW = {
    "name": "fgls",
    "statement": "FGLS | wins",
    "source": "paper 000, section 5.1",
    "value": 0.5,
    "stderr": 0.125,
    "threshold": 0.0,
    "num_seeds": 3,
    "holds": True,
    "note": "",
}


def dataset(value=1.0, units="nats"):
    error = np.full((2, 3, 2, 4), value, np.float32)  # beta, seed, method, step
    coords = {"beta": [1.0, math.inf], "seed": [5, 6, 7], "method": ["sgd", "erma"], "step": [0, 10, 20, 30]}
    variables = {
        "error": (("beta", "seed", "method", "step"), error, {"units": units}),
        "count": (("beta", "seed"), np.arange(6).reshape(2, 3)),
    }
    return xr.Dataset(variables, coords, {"num_runs": 6, "num_computed": 6, "compile_seconds": 1.5, "run_seconds": 3.0})


def write(config, runs, out="out", claims=(ROW,), figure=b"png", **kwargs):
    return results.write(out, config, runs, figure=figure, claims=list(claims), **kwargs)
