"""Runs experiments, from a config to a folder with the result.

An experiment is a train function, its data, a figure and claims. A config names a function that makes one, here as
``"module:toy"``::

    @dataclasses.dataclass(frozen=True)
    class Toy:
        steps: int = 100
        gamma: float = 0.1

    def toy(config: Toy) -> Experiment:
        def train(key, hparams, data):   # hparams: {sweep axis: scalar}
            cfg = configs.replace(config, hparams)
            ...
            return {"error": errors}     # [method, step]
        return Experiment(train, data, dims={"error": ("method", "step")}, ...)

Claims are judged by one rule (see :func:`mixjax.runner.claims.versus`), on paired seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from mixjax import sweeps
from mixjax.runner import results as results_lib
from mixjax.runner.axes import axes_are_numbers
from mixjax.runner.claims import Claim, rows
from mixjax.runner.configs import Config, ConfigError, Run, as_json
from mixjax.runner.results import Results
from mixjax.runner.tracking import json_lines
from mixjax.sweeps import DryRun, Record, Segments, Sweep, loop
from mixjax.sweeps.progress import Tracker, together
from mixjax.sweeps.spec import Train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Experiment", "ReportError", "dry_run", "run"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Holds a train function and its data, and the functions that draw and judge its results.

    The function that a config names makes one for each of the config's runs.

    Args:
        train: pure and jittable, ``train(key, hparams, data) -> {metric: array}``, or a
            :class:`mixjax.sweeps.Segments`. ``hparams`` is {sweep axis or column of points: scalar}.
        data: a pytree that ``train`` gets as an argument. Data that ``train`` closes over would be constants of the
            compiled program.
        dims: metric -> its dims after the sweep's own, such as ("method", "step"). xarray's ``sel`` has a keyword
            ``method`` of its own: select with ``.sel({"method": "erma"})``, never ``.sel(method="erma")``.
        coords: dim -> labels.
        units: metric -> its unit, such as "nats" or "1"; shown on axes and kept with the metrics.
        figure: results -> matplotlib Figure. The results are {run name: xarray.Dataset} of all runs, in config order.
            If there are several runs, the experiment of the first one draws the figure, and makes the claims and the
            summary.
        claims: results -> list of Claim.
        points: the experiment's own points, in product with the config's axes, see :class:`mixjax.sweeps.Sweep`. For
            instance one point for each method and each value of its grid, with a column of the methods' names.
        summary: results -> Markdown for the head of the report, for instance a table of all results.
    """

    train: Train | Segments
    data: Any
    dims: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Sequence]
    units: Mapping[str, str]
    figure: Callable[[Results], Figure]
    claims: Callable[[Results], list[Claim]]
    points: Mapping[str, Sequence] | None = None
    summary: Callable[[Results], str] | None = None


class ReportError(RuntimeError):
    """Says that the figure, the claims or the summary failed after the runs had finished.

    Args:
        path: the folder that holds the metrics all the same.
        failures: "figure", "claims" or "summary" -> traceback.
    """

    def __init__(self, path: Path, failures: Mapping[str, str]):
        """Makes the message, which names what failed and where the metrics are."""
        super().__init__(f"the {' and the '.join(failures)} failed; the metrics are kept in {path}")
        self.path, self.failures = path, dict(failures)


def dry_run(config: Config) -> dict[str, DryRun]:
    """Sizes and times each run of a config: compiles its program, and calls the program once.

    Args:
        config: from :func:`mixjax.runner.configs.load`.

    Returns:
        Run name -> size and time of its sweep.

    Raises:
        ConfigError: as :func:`run`, apart from ``out``.
        TypeError: the function that the config names does not return an :class:`Experiment`.
    """
    found = {}
    for item in config.runs:
        experiment, spec = _sweep_of(config, item)
        with axes_are_numbers(config, experiment):
            found[item.name] = sweeps.dry_run(spec)
    return found


def run(
    config: Config,
    *,
    out: str | Path | None = None,
    callback: Callable[[str, float, int], None] | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Runs the sweeps of a config, then makes the figure, the claims and the report, and writes all at the end.

    Until then, finished chunks are kept in ``<out>.chunks`` (see :func:`mixjax.sweep`): after a kill, or a figure that
    failed, the same call computes only the rest. The folder is removed when the result is written. Several hosts
    (``jax.distributed``) need an ``out`` that all of them see. The first host writes the result, and the records of its
    own chunks.

    Args:
        config: from :func:`mixjax.runner.configs.load`.
        out: the folder to write; default ``results/NAME`` under the current folder.
        callback: ``callback(run name, runs done, runs in all)``, called before the first compiled call of a run and
            after each.
        tracker: called with each :class:`mixjax.sweeps.Record`. The records are written to ``progress.jsonl`` too.

    Returns:
        The folder written.

    Raises:
        ConfigError: ``out`` holds something that is no result; a run has points in its config and in its experiment; a
            swept field sets a shape, a number of steps or a branch.
        TypeError: the function that the config names does not return an :class:`Experiment`.
        mixjax.sweeps.checkpoints.ChangedError: ``<out>.chunks`` holds chunks of another config, code or data. The
            error says what differs.
        ReportError: the figure, the claims or the summary raised. The metrics and the config are then in
            ``<out>.partial``, and an earlier result in ``out`` is untouched.
    """
    out = results_lib.check_out(Path("results", config.name) if out is None else out)
    partial = results_lib.check_out(out.with_name(f"{out.name}.partial"))
    # Called for its errors only: a config that cannot be written should fail now, not after the runs.
    config.to_toml()
    chunks = out.with_name(f"{out.name}.chunks")
    progress = chunks / "progress.jsonl"
    is_first_host = jax.process_index() == 0
    trackers = [] if tracker is None else [tracker]
    if is_first_host:
        trackers.insert(0, json_lines(progress))
    results, first = _run_sweeps(config, chunks, callback, together(*trackers))
    # Every host holds the same results, and one of them writes.
    if not is_first_host:
        return out
    failures: dict[str, str] = {}

    def attempt(part: str, function: Callable, otherwise: Any) -> Any:
        # The runs are too dear to be lost to a mistake in a plot.
        try:
            return function()
        except Exception:
            failures[part] = traceback.format_exc()
            return otherwise

    figure = attempt("figure", lambda: results_lib.render(first.figure(results)), None)
    claims = attempt("claims", lambda: rows(first.claims(results)), [])
    # A local name, whose type stays known inside the lambda.
    write_summary = first.summary
    summary = "" if write_summary is None else attempt("summary", lambda: write_summary(results), "")
    out = partial if failures else out
    results_lib.write(
        out, config, results, figure=figure, claims=claims, summary=summary, failures=failures, progress=progress
    )
    if failures:
        raise ReportError(out, failures)
    shutil.rmtree(chunks, ignore_errors=True)
    return out


def _run_sweeps(
    config: Config, chunks: Path, callback: Callable[[str, float, int], None] | None, tracker: Tracker
) -> tuple[Results, Experiment]:
    """Runs the sweep of each run. Returns all metrics, and the first run's experiment without its data."""
    results: Results = {}
    first = None
    for number, item in enumerate(config.runs):
        experiment, spec = _sweep_of(config, item)
        report = None
        if callback is not None:
            report = functools.partial(callback, item.name)
            report(0, spec.num_runs)
        with axes_are_numbers(config, experiment):
            dataset = loop.run(
                spec,
                callback=report,
                tracker=_named(item.name, tracker),
                checkpoint=chunks / f"run_{number:03d}",
                identity={"run": item.name, "config": as_json(item.values)},
            )
        for metric in dataset.data_vars:
            dataset[metric].attrs["units"] = experiment.units.get(str(metric), "")
        results[item.name] = dataset
        # Without its data, which would stay in memory beside the data of the next runs.
        if first is None:
            first = dataclasses.replace(experiment, data=None)
    if first is None:
        raise ConfigError(f"{config.path}: no runs")
    return results, first


def _sweep_of(config: Config, item: Run) -> tuple[Experiment, Sweep]:
    """Makes a run's experiment, and describes its sweep."""
    experiment = config.function(item.values)
    if not isinstance(experiment, Experiment):
        raise TypeError(f"{config.experiment} must return an Experiment, got {type(experiment).__name__}")
    if experiment.points and config.sweep.points:
        raise ConfigError(f"{config.path}: {config.experiment} has points of its own; leave [sweep] points out")
    # Every key of the table [sweep] is an argument of Sweep.
    settings = {**vars(config.sweep), "points": experiment.points or config.sweep.points}
    spec = Sweep(experiment.train, data=experiment.data, dims=experiment.dims, coords=experiment.coords, **settings)
    return experiment, spec


def _named(name: str, tracker: Tracker) -> Tracker:
    """Adds the name of a config's run to each record."""

    def named(record: Record) -> None:
        tracker({"run": name, **record})

    return named
