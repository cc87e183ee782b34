"""The description of a result's arrays: what JSON can hold, and sums over runs."""

import json
import math

import numpy as np
import xarray as xr

from mixjax.runner.metadata import metadata
from tests.runner.written import dataset


def test_runs_are_added_up_and_described():
    meta = metadata({"x": dataset(), "y": dataset(units="1")})
    assert (meta["num_runs"], meta["num_computed"], meta["compile_seconds"], meta["run_seconds"]) == (12, 12, 3.0, 6.0)
    assert list(meta["runs"]) == ["x", "y"] and meta["runs"]["y"]["metrics"]["error"]["units"] == "1"
    assert meta["runs"]["x"]["metrics"]["count"] == {"dims": ["beta", "seed"], "units": ""}
    assert meta["runs"]["x"]["num_runs"] == 6 and meta["runs"]["x"]["chunk"] is None
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta


def test_coordinates_survive_json():
    coords = {"beta": [math.inf, 0.5], "method": ("beta", np.array(["a", "b"], object)), "step": [1, 2]}
    values = xr.Dataset({"m": (("seed", "beta", "step"), np.zeros((1, 2, 2)))}, coords)
    found = metadata({"x": values})["runs"]["x"]["coords"]
    assert found["beta"] == {"dims": ["beta"], "values": ["inf", 0.5], "dtype": "float64"}
    assert found["method"] == {"dims": ["beta"], "values": ["a", "b"], "dtype": "str"}
    assert found["step"]["values"] == [1, 2] and found["step"]["dtype"] == "int64"
    assert np.asarray(found["beta"]["values"], found["beta"]["dtype"]).tolist() == [math.inf, 0.5]
