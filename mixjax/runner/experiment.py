"""Runs experiments, from a config to a folder with the result.

An experiment is a train function and its data; a figure and claims of its own are optional. A config names a function
that makes one, as ``"module:toy"``:

    >>> import dataclasses, jax, jax.numpy as jnp
    >>> from mixjax.runner import configs
    >>> @dataclasses.dataclass(frozen=True)
    ... class Toy:
    ...     steps: int = 100
    ...     gamma: float = 0.1
    >>> def toy(config: Toy) -> Experiment:
    ...     def train(key, hparams, data):  # hparams: {sweep axis: scalar}
    ...         cfg = configs.replace(config, hparams)
    ...         decay = (1 - cfg.gamma) ** jnp.arange(cfg.steps)
    ...         return {"error": data * decay + 0.01 * jax.random.normal(key)}  # [error_0]
    ...     return Experiment(train, data=1.0)

Claims are judged by one rule (see :func:`mixjax.runner.claims.versus`), on paired seeds.
"""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from mixjax import sweeps
from mixjax.files import claimed
from mixjax.runner import results as results_lib
from mixjax.runner.axes import axes_are_numbers
from mixjax.runner.claims import Claim, rows
from mixjax.runner.configs import Config, ConfigError, Run, as_json
from mixjax.runner.labels import Part, joined, parts_of
from mixjax.runner.loading import one_experiment, sharing
from mixjax.runner.rehearsal import made_up, outline, rehearse
from mixjax.runner.results import Results
from mixjax.runner.tracking import json_lines
from mixjax.runner.watching import write_runs
from mixjax.stopping import check_preempted
from mixjax.sweeps import DryRun, HostLoop, Record, Segments, Sweep, loop, on_host
from mixjax.sweeps.checkpoints import remove_chunks
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.progress import Tracker, together
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.space import check_space, checkpoint_bytes
from mixjax.sweeps.spec import Train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Experiment", "HostDryRun", "ReportError", "dry_run", "run"]


def _sweep_figure(results: Results) -> Figure:
    # Imported when a figure is drawn: matplotlib takes a second.
    from mixjax.runner.figures import sweep_figure

    return sweep_figure(results)


def _no_claims(results: Results) -> list[Claim]:
    return []


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Holds a train function and its data, and the functions that draw and judge its results.

    The function that a config names makes one for each of the config's runs, and for each label where the sweep has
    axes of labels.

    Args:
        train: pure and jittable, ``train(key, hparams, data) -> {metric: array}``, or a
            :class:`mixjax.sweeps.Segments`, or a :class:`mixjax.sweeps.HostLoop`, an ordinary loop whose files come
            with the result. ``hparams`` is {sweep axis or column of points: its value}, scalars or, for
            a field of vectors, arrays. For an axis of labels it has the label's position; the label itself is in the
            config that the function got.
        data: a pytree that ``train`` gets as an argument. Data that ``train`` closes over would be constants of the
            compiled program. Runs share data that :func:`mixjax.runner.loading.load_once` has loaded.
        dims: metric -> its dims after the sweep's own, such as ("method", "step"). A metric that is left out gets
            "<metric>_0" and so on. xarray's ``sel`` has a keyword ``method`` of its own: select with
            ``.sel({"method": "erma"})``, never ``.sel(method="erma")``.
        coords: dim -> labels.
        units: metric -> its unit, such as "nats" or "1"; shown on axes and kept with the metrics.
        figure: results -> matplotlib Figure; by default :func:`mixjax.runner.sweep_figure`, every metric against what
            varies. The results are {run name: xarray.Dataset} of all runs, in config order. If there are several runs,
            the experiment of the first one draws the figure, and makes the claims and the summary.
        claims: results -> list of Claim; none by default.
        points: the experiment's own points, in product with the config's axes, see :class:`mixjax.sweeps.Sweep`. For
            instance one point for each method and each value of its grid, with a column of the methods' names.
        summary: results -> Markdown for the head of the report, for instance a table of all results.
        is_rehearsed: whether figure, claims and summary are tried on made-up results before the first run. What fails
            whatever the numbers are is told then. False is for functions that cannot do with made-up numbers, or that
            take long or write files.

    Example:
        >>> def train(key, hparams, data):
        ...     return {"error": data * jax.random.normal(key)}
        >>> experiment = Experiment(train, data=2.0)
        >>> experiment.claims({})
        []
    """

    train: Train | Segments | HostLoop
    data: Any = None
    dims: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    coords: Mapping[str, Sequence] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figure: Callable[[Results], Figure] = _sweep_figure
    claims: Callable[[Results], list[Claim]] = _no_claims
    points: Mapping[str, Sequence] | None = None
    summary: Callable[[Results], str] | None = None
    is_rehearsed: bool = True


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


class HostDryRun(NamedTuple):
    """Holds what is known of a sweep of a :class:`mixjax.sweeps.HostLoop` before it is run: no size and no time.

    Attributes:
        num_runs: points times seeds.
        seeds: the first seed and the last one.
        settings: hyperparameter -> its values, where there are several.
        is_rehearsed: whether figure, claims and summary were tried on made-up results. They are where the experiment
            allows it and names the dimensions of its metrics with their labels.
    """

    num_runs: int
    seeds: tuple[int, int]
    settings: dict[str, list]
    is_rehearsed: bool


def dry_run(config: Config) -> dict[str, DryRun | HostDryRun]:
    """Sizes and times each run of a config: compiles its program, and calls the program once.

    A :class:`mixjax.sweeps.HostLoop` has no program. Its runs are counted only.

    Args:
        config: from :func:`mixjax.runner.configs.load`.

    Returns:
        Run name -> size and time of its sweep. Where the sweep has labels, the names have them too.

    Raises:
        ConfigError: as :func:`run`, apart from ``out``.
        RehearsalError: as :func:`run`.
        TypeError: the function that the config names does not return an :class:`Experiment`.
    """
    with sharing():
        return _dry_run(config)


def _dry_run(config: Config) -> dict[str, DryRun | HostDryRun]:
    # The first part, which is returned too, would keep its data in memory.
    is_rehearsed = _rehearse(config, [(item, parts_of(config, item)) for item in config.runs])[-1]
    found: dict[str, DryRun | HostDryRun] = {}
    for item in config.runs:
        done_before = 0
        for part in parts_of(config, item):
            experiment, spec = _sweep_of(config, part, done_before)
            done_before += spec.num_runs
            if isinstance(spec.train, HostLoop):
                found[part.title] = _host_dry_run(spec, is_rehearsed)
            else:
                with axes_are_numbers(config, experiment, part):
                    found[part.title] = sweeps.dry_run(spec)
            # The data of two parts need not fit the memory together.
            del experiment, spec
    return found


def _host_dry_run(spec: Sweep, is_rehearsed: bool) -> HostDryRun:
    runs = Runs(spec.axes or {}, spec.points or {}, spec.seeds, spec.first_seed, spec.paired)
    settings = {name: np.asarray(values).tolist() for name, values in {**runs.axes, **runs.points}.items()}
    settings = {name: values for name, values in settings.items() if len(values) > 1}
    return HostDryRun(runs.num, (int(min(runs.seeds)), int(max(runs.seeds))), settings, is_rehearsed)


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
        ValueError, TypeError: the experiment's function or ``train`` refused a value. All runs are traced before the
            first one starts.
        RehearsalError: the figure, the claims or the summary would fail after the runs: they are tried on made-up
            results of the same shapes before the first one starts.
        OSError: a disk is full, for instance, or has too little room for the checkpoints; or (a BlockingIOError)
            another process or thread is at work on ``out``.
    """
    out = results_lib.check_out(Path("results", config.name) if out is None else out)
    chunks = out.with_name(f"{out.name}.chunks")
    # Two threads would take each other's chunks and records away.
    with claimed(chunks):
        return _run(config, out, chunks, callback, tracker)


def _run(
    config: Config,
    out: Path,
    chunks: Path,
    callback: Callable[[str, float, int], None] | None,
    tracker: Tracker | None,
) -> Path:
    """Runs a config in folders that are this call's alone."""
    partial = results_lib.check_out(out.with_name(f"{out.name}.partial"))
    # Called for its errors only: a config that cannot be written should fail now, not after the runs.
    config.to_toml()
    progress = chunks / "progress.jsonl"
    is_first_host = jax.process_index() == 0
    trackers = [] if tracker is None else [tracker]
    if is_first_host:
        trackers.insert(0, json_lines(progress))
    with sharing():
        results, first, files = _run_sweeps(config, chunks, callback, together(*trackers))
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
    summary = "" if write_summary is None else attempt("summary", lambda: _text(write_summary(results)), "")
    out = partial if failures else out
    results_lib.write(
        out,
        config,
        results,
        figure=figure,
        claims=claims,
        summary=summary,
        failures=failures,
        progress=progress,
        files=files,
    )
    if failures:
        raise ReportError(out, failures)
    remove_chunks(chunks)
    return out


def _text(summary: Any) -> str:
    if not isinstance(summary, str):
        raise TypeError(f"summary must be a text, got {type(summary).__name__}")
    return summary


def _run_sweeps(
    config: Config, chunks: Path, callback: Callable[[str, float, int], None] | None, tracker: Tracker
) -> tuple[Results, Experiment, dict[Path, str]]:
    """Runs the sweep of each run. Returns all metrics, the first experiment without its data, and the kept files."""
    all_parts = [(item, parts_of(config, item)) for item in config.runs]
    # A mistake in a later run, or after the last one, must not cost the time of all runs.
    made, needed, _ = _rehearse(config, all_parts)
    check_space(chunks, needed)
    if jax.process_index() == 0:
        tracker = _names_first(chunks, [part.title for _, parts in all_parts for part in parts], tracker)
    results: Results = {}
    files: dict[Path, str] = {}
    ran_first = None
    number = 0
    for item, parts in all_parts:
        datasets: list[Any] = []
        for part in parts:
            done_before = sum(one.attrs["num_runs"] for one in datasets)
            # The first one is made already: its data may have taken long to read.
            experiment, spec = made or _sweep_of(config, part, done_before)
            made = None
            report = _report(callback, item.name, done_before, config.sweep.num_runs)
            if not datasets and report is not None:
                report(0, spec.num_runs)
            checkpoint = chunks / f"run_{number:03d}"
            files[checkpoint / on_host.FILES] = _folder_name(item.name, len(results))
            with axes_are_numbers(config, experiment, part):
                dataset = loop.run(
                    spec,
                    callback=report,
                    tracker=_named(part.title, tracker),
                    checkpoint=checkpoint,
                    identity={"run": item.name, "config": as_json(part.values)},
                )
            for metric in dataset.data_vars:
                dataset[metric].attrs["units"] = experiment.units.get(str(metric), "")
            datasets.append(dataset)
            number += 1
            # Without its data, which would stay in memory beside the data of the next runs.
            ran_first = ran_first or dataclasses.replace(experiment, data=None)
            # So that they are gone before those of the next part are read.
            del experiment, spec
        results[item.name] = joined(parts, datasets)
    if ran_first is None:
        raise ConfigError(f"{config.path}: no runs")
    return results, ran_first, files


def _rehearse(
    config: Config, all_parts: Sequence[tuple[Run, Sequence[Part]]]
) -> tuple[tuple[Experiment, Sweep] | None, dict[str, int], bool]:
    """Traces every part of every run, and tries what comes after the runs on made-up results of their shapes.

    Returns:
        The first part's experiment and its sweep; the bytes on disk that the parts need, by their titles; whether there
        was something to try.
    """
    first, needed, outlines = None, {}, {}
    # The first part comes last, so that its data are the only ones that stay in memory.
    for part in reversed([part for _, parts in all_parts for part in parts]):
        # All names that hold the data of the part before.
        first = experiment = spec = prepared = None
        experiment, spec = first = _sweep_of(config, part)
        if not isinstance(spec.train, HostLoop):
            with axes_are_numbers(config, experiment, part):
                prepared = Prepared.of(spec)
            needed[part.title] = checkpoint_bytes(prepared, spec.chunk)
        outlines[part.title] = outline(experiment, spec, prepared)

    def make(fill: str) -> Results:
        return {
            item.name: joined(parts, [made_up(outlines[part.title], fill) for part in parts])
            for item, parts in all_parts
        }

    has_shapes = all(one.shapes is not None for one in outlines.values())
    if first is None or not first[0].is_rehearsed or not has_shapes:
        return first, needed, False
    rehearse(first[0], make)
    return first, needed, True


def _folder_name(run: str, number: int) -> str:
    """Makes the name of a folder of a run's name, which a user chose; the number keeps two of them apart."""
    return f"{number}_{re.sub(r'[^-+.=a-zA-Z0-9]+', '_', run)[:60]}"


def _sweep_of(config: Config, part: Part, done_before: int = 0) -> tuple[Experiment, Sweep]:
    """Makes the experiment of a part of a run, and describes its sweep, before which other parts have done runs."""
    # Reading data may take longer than a scheduler waits. Several hosts stop together, when the sweep begins.
    if jax.process_count() == 1:
        check_preempted()
    with one_experiment():
        experiment = config.function(part.values)
    if not isinstance(experiment, Experiment):
        raise TypeError(f"{config.experiment} must return an Experiment, got {type(experiment).__name__}")
    if experiment.points and part.points:
        raise ConfigError(f"{config.path}: {config.experiment} has points of its own; leave [sweep] points out")
    # Every key of the table [sweep] is an argument of Sweep.
    settings = {**vars(config.sweep), "axes": part.axes, "points": experiment.points or part.points}
    if not config.sweep.paired:
        settings["first_seed"] += done_before
    spec = Sweep(experiment.train, data=experiment.data, dims=experiment.dims, coords=experiment.coords, **settings)
    if isinstance(spec.train, HostLoop):
        try:
            on_host.check_one_by_one(spec)
        except ValueError as error:
            raise ConfigError(f"{config.path}: [sweep] {error}") from error
    return experiment, spec


def _report(
    callback: Callable[[str, float, int], None] | None, name: str, done_before: int, in_all: int
) -> Callable[[float, int], None] | None:
    """Makes the callback of one part of a run, which counts the runs of the parts before it too."""
    if callback is None:
        return None
    return lambda done, total: callback(name, done_before + done, max(total, in_all))


def _names_first(chunks: Path, names: list[str], tracker: Tracker) -> Tracker:
    """Writes the names of all parts, for who watches, before the first record: a run that never began leaves none."""
    is_written = False

    def tracked(record: Record) -> None:
        nonlocal is_written
        if not is_written:
            write_runs(chunks, names)
            is_written = True
        tracker(record)

    return tracked


def _named(name: str, tracker: Tracker) -> Tracker:
    """Adds the name of a config's run to each record."""

    def named(record: Record) -> None:
        tracker({"run": name, **record})

    return named
