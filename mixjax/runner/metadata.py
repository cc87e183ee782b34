"""Describes a result's arrays for ``metrics.json``: dimensions, coordinates, units, times, device, versions."""

import dataclasses
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mixjax.checks import requires
from mixjax.runner.frames import holds_text

with requires("experiments", "mixjax.runner.metadata"):
    import xarray as xr

__all__ = ["ATTRS", "Meta", "RunMeta", "metadata"]

_SUMS = ("num_runs", "num_computed", "compile_seconds", "run_seconds")

ATTRS = (*_SUMS, "chunk", "vectorize")
"""The attributes of a sweep's dataset that a result keeps."""


@dataclasses.dataclass(frozen=True)
class _MetricMeta:
    """Describes a metric in ``metrics.json``: the names of its dimensions, and its unit or ""."""

    dims: list[str]
    units: str


@dataclasses.dataclass(frozen=True)
class _CoordMeta:
    """Describes a coordinate in ``metrics.json``: its dimensions, its values, nested as they are, and their type."""

    dims: list[str]
    values: Any
    dtype: str


@dataclasses.dataclass(frozen=True)
class RunMeta:
    """Describes a run in ``metrics.json``. A dataset that was made by hand, not by a sweep, has no counts."""

    metrics: dict[str, _MetricMeta]
    coords: dict[str, _CoordMeta]
    num_runs: int | None = None
    num_computed: int | None = None
    compile_seconds: float | None = None
    run_seconds: float | None = None
    chunk: int | None = None
    vectorize: str | int | None = None


@dataclasses.dataclass(frozen=True)
class Meta:
    """Describes what ``metrics.json`` holds, for the check of a file that is read."""

    num_runs: int
    compile_seconds: float
    run_seconds: float
    device: str
    versions: dict[str, str | None]
    runs: dict[str, RunMeta]
    # The first versions did not write it.
    num_computed: int | None = None


def metadata(results: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Collects the content of ``metrics.json``.

    Args:
        results: run name -> metrics.

    Returns:
        Counts and times of all runs together, the device and the versions; and for each run the dimensions and units of
        its metrics and the values of its coordinates. All values are of types that JSON has.
    """
    runs = {name: _run_meta(dataset) for name, dataset in results.items()}
    devices = jax.devices()
    # All CPUs have the device kind "cpu"; the number of cores tells more about the times.
    cores = f", {os.cpu_count()} cores" if devices[0].platform == "cpu" else ""
    libraries = ("mixjax", "jax", "jaxlib", "flax", "optax", "numpy", "xarray")
    return {
        # A dataset that was made by hand, not by a sweep, has no counts.
        **{key: sum(run[key] or 0 for run in runs.values()) for key in _SUMS},
        "device": f"{len(devices)} x {devices[0].device_kind} ({platform.machine()}{cores})",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        "runs": runs,
    }


def _run_meta(dataset: xr.Dataset) -> dict[str, Any]:
    metrics = {
        metric: {"dims": list(values.dims), "units": values.attrs.get("units", "")}
        for metric, values in dataset.data_vars.items()
    }
    coords = {
        name: {"dims": list(coord.dims), "values": _coordinate(coord.values), "dtype": _dtype(coord.values)}
        for name, coord in dataset.coords.items()
    }
    return {"metrics": metrics, "coords": coords, **{key: dataset.attrs.get(key) for key in ATTRS}}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _dtype(values: np.ndarray) -> str:
    # NumPy's name of a string type has a length in it, and "object" could not be read back.
    return "str" if holds_text(values) else str(values.dtype)


def _coordinate(values: Any) -> Any:
    """Turns a coordinate into what JSON can hold: an infinity, which is a valid beta, becomes the text "inf"."""
    if isinstance(values, np.ndarray):
        values = (values.astype(str) if holds_text(values) else values).tolist()
    if isinstance(values, list):
        return [_coordinate(v) for v in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values
