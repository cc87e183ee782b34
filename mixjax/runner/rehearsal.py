"""Tries an experiment's figure, claims and summary on made-up results, before the first run takes hours.

The results have the shapes, names and coordinates that the runs will return, which tracing tells, and made-up numbers.
So an index that no result has, a method that was left out or a missing package is told at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from mixjax.sweeps import Sweep, loop
from mixjax.sweeps.arrays import can_be_nan
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.runs import Runs

if TYPE_CHECKING:
    import xarray

    from mixjax.runner.experiment import Experiment
    from mixjax.runner.results import Results

__all__ = ["Outline", "RehearsalError", "made_up", "outline", "rehearse"]

_LOG = logging.getLogger(__name__)

_MOST_NUMBERS = 1_000_000
"""With more numbers in a run's results, fewer seeds are made up."""

_SECONDS = 3.0
"""When so much time has gone by, what has not been tried yet is not tried."""

_FILLS = ("random", "zeros", "ones")
"""An error counts if it comes with all of these: one that comes with some only is about the numbers."""


class RehearsalError(RuntimeError):
    """Says that a figure, the claims or a summary would fail after the runs, and where."""


class Outline(NamedTuple):
    """Describes the results of a sweep before it is run.

    Attributes:
        spec: the sweep, without its data.
        dims: metric -> names of its own dimensions.
        shapes: metric -> its own shape and its type; None where they are not known.
        units: metric -> unit.
    """

    spec: Sweep
    dims: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, jax.ShapeDtypeStruct] | None
    units: Mapping[str, str]


def outline(experiment: Experiment, spec: Sweep, prepared: Prepared | None) -> Outline:
    """Describes the results of a sweep.

    Args:
        experiment: names the dimensions and units of the metrics.
        spec: the sweep.
        prepared: the sweep, traced; None for a :class:`mixjax.sweeps.HostLoop`, which cannot be. Its shapes are known
            if all dimensions of all metrics have coordinates.

    Returns:
        The description.
    """
    spec = dataclasses.replace(spec, data=None)
    if prepared is not None:
        return Outline(spec, prepared.dims, prepared.metric_shapes, experiment.units)
    dims, sizes = experiment.dims, {dim: len(labels) for dim, labels in experiment.coords.items()}
    shapes = None
    if dims and all(dim in sizes for own in dims.values() for dim in own):
        shapes = {
            name: jax.ShapeDtypeStruct(tuple(sizes[dim] for dim in own), np.float32) for name, own in dims.items()
        }
    return Outline(spec, dims, shapes, experiment.units)


def made_up(described: Outline, fill: str) -> xarray.Dataset:
    """Makes up a sweep's results.

    Args:
        described: their description, with shapes.
        fill: "random" numbers from 0 to 1, "zeros" or "ones".

    Returns:
        What :func:`mixjax.sweep` would return. Where that would be large there are fewer seeds.
    """
    spec, dims, shapes, units = described
    numbers = sum(math.prod(x.shape) for x in (shapes or {}).values()) * spec.num_runs // spec.seeds
    spec = dataclasses.replace(spec, seeds=max(1, min(spec.seeds, _MOST_NUMBERS // max(numbers, 1))))
    runs = Runs(spec.axes or {}, spec.points or {}, spec.seeds, spec.first_seed, spec.paired)
    rng = np.random.default_rng(0)
    metrics = {name: _numbers(rng, (runs.num, *x.shape), x.dtype, fill) for name, x in (shapes or {}).items()}
    attrs = {"num_runs": runs.num, "num_computed": runs.num, "compile_seconds": 0.0, "run_seconds": 0.0}
    found = loop.dataset(spec, runs, dims, {0: metrics}, {**attrs, "chunk": 1, "vectorize": "map"})
    for name in found.data_vars:
        found[name].attrs["units"] = units.get(str(name), "")
    return found


def _numbers(rng, shape, dtype, fill):
    if fill != "random":
        return np.full(shape, fill == "ones", dtype)
    # Integers are mostly counts and labels, of which small ones are sure to mean something.
    return (rng.random(shape) if can_be_nan(np.empty(0, dtype)) else rng.integers(0, 2, shape)).astype(dtype)


def rehearse(experiment: Experiment, make: Callable[[str], Results]) -> None:
    """Calls an experiment's figure, claims and summary with made-up results.

    Args:
        experiment: the one that will draw and judge the results.
        make: ``make(fill) -> results``, run name -> made-up dataset.

    Raises:
        RehearsalError: one of them fails, whatever the numbers are.
    """
    calls: dict[str, Callable[[Results], Any]] = {
        "figure": lambda found: _drawn(experiment.figure(found)),
        "claims": lambda found: list(experiment.claims(found)),
    }
    if experiment.summary is not None:
        calls["summary"] = experiment.summary
    # What is imported now is not counted: it is needed at the end in any case.
    with contextlib.suppress(ImportError):
        import matplotlib.pyplot  # noqa: F401
    start = time.perf_counter()
    for part, call in calls.items():
        if time.perf_counter() - start > _SECONDS:
            _LOG.info("the %s is not tried on made-up numbers: the parts before it took long", part)
            return
        _try(part, call, make)


def _try(part: str, call: Callable[[Results], Any], make: Callable[[str], Results]) -> None:
    errors: list[Exception] = []
    for fill in _FILLS:
        found = make(fill)
        try:
            with _quiet():
                call(found)
            return
        except Exception as error:
            _LOG.debug("the %s fails with %s", part, fill, exc_info=True)
            errors.append(error)
    error = errors[0]
    frames = traceback.extract_tb(error.__traceback__)
    # The last line of the experiment's own, not that of the library which it called.
    where = ([frame for frame in frames if "site-packages" not in frame.filename] or frames)[-1]
    raise RehearsalError(
        f"the {part} would fail after all runs, on numbers of the shapes that they return: {type(error).__name__}: "
        f"{' '.join(str(error).split())} ({os.path.basename(where.filename)}, line {where.lineno}); nothing was run"
    ) from error


def _drawn(figure: Any) -> None:
    import matplotlib.figure
    import matplotlib.pyplot as plt

    if not isinstance(figure, matplotlib.figure.Figure):
        raise TypeError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    plt.close(figure)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what made-up numbers make libraries say, and leaves no figure behind that a failed call has begun."""
    plt: Any = sys.modules.get("matplotlib.pyplot")
    before = set() if plt is None else set(plt.get_fignums())
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        if plt is not None:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
