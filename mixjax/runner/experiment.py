"""An experiment: a train function, its data, a figure and claims; `run` takes it from a config to a result.

```python
@dataclasses.dataclass(frozen=True)
class Toy:
    steps: int = 100
    gamma: float = 0.1

def toy(config: Toy) -> Experiment:  # named in a config as "module:toy"
    def train(key, hparams, data):   # hparams: {sweep axis: scalar}
        cfg = configs.replace(config, hparams)
        ...
        return {"error": errors}     # [method, step]
    return Experiment(train, data, dims={"error": ("method", "step")}, ...)
```

Claims are judged by one rule (see `mixjax.runner.claims.versus`), on paired seeds.
"""

import contextlib
import dataclasses
import functools
import math
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mixjax.runner import results as results_lib
from mixjax.runner.claims import Claim, rows
from mixjax.runner.configs import Config, ConfigError, Run, as_json
from mixjax.runner.results import Results
from mixjax.runner.tracking import json_lines
from mixjax.sweeps import Plan, Segments, plan, sweep
from mixjax.sweeps.progress import Record, together

__all__ = ["Experiment", "ReportError", "plans", "run"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a config's function returns, once for each of its runs.

    Args:
        train: pure and jittable, `train(key, hparams, data) -> {metric: array}`, or a `mixjax.sweeps.Segments`; hparams
            is {sweep axis or column of points: scalar}.
        data: a pytree, passed as an argument, never closed over.
        dims: metric -> its dims after the sweep's own, such as ("method", "step"). xarray's `sel` has a keyword
            `method` of its own: select with `.sel({"method": "erma"})`, never `.sel(method="erma")`.
        coords: dim -> labels.
        units: metric -> its unit, such as "nats" or "1"; shown on axes and kept with the metrics.
        figure: results -> matplotlib Figure. Results is {run name: xarray.Dataset}, all runs, in config order.
        claims: results -> list of Claim. Figure and claims are those of the first run's experiment.
        points: the experiment's own points, see `mixjax.sweep`: for instance a row for each method and each value of
            its grid, with the method's name in a column of labels. In product with the config's axes.
        summary: results -> Markdown, for the head of the report: a table of everything. That of the first run's
            experiment.
    """

    train: Callable
    data: Any
    dims: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Sequence]
    units: Mapping[str, str]
    figure: Callable[[Results], Any]
    claims: Callable[[Results], list[Claim]]
    points: Mapping[str, Sequence] | None = None
    summary: Callable[[Results], str] | None = None


class ReportError(RuntimeError):
    """The figure, the claims or the summary failed after the runs had finished; the metrics are kept in `path`."""

    def __init__(self, path: Path, failures: Mapping[str, str]):
        """Keeps the folder written, and "figure", "claims" or "summary" -> traceback."""
        super().__init__(f"the {' and the '.join(failures)} failed; the metrics are kept in {path}")
        self.path, self.failures = path, dict(failures)


def plans(config: Config) -> dict[str, Plan]:
    """Sizes and times each run of a config; compiles its program and runs one call of it.

    Args:
        config: from `mixjax.runner.configs.load`.

    Returns:
        Run name -> plan.

    Raises:
        ConfigError, TypeError: as `run`.
    """
    found = {}
    for item in config.runs:
        experiment, arguments = _sweep_of(config, item)
        with _axes_are_numbers(config, experiment):
            found[item.name] = plan(experiment.train, **arguments)
    return found


def run(
    config: Config,
    *,
    out: str | Path | None = None,
    callback: Callable[[str, float, int], None] | None = None,
    track: Callable[[Record], None] | None = None,
) -> Path:
    """Runs a config: every run's sweep, then the figure, the claims and the report, written at the end in one go.

    Finished chunks are kept in `<out>.chunks` meanwhile (see `mixjax.sweep`): after a kill, or a figure that failed,
    the same call computes the rest only. The folder is removed when the result is written. Several hosts
    (`jax.distributed`) need an `out` that all see; the first one writes the result, and the records of its own chunks.

    Args:
        config: from `mixjax.runner.configs.load`.
        out: the folder to write; default `results/NAME` under the current folder.
        callback: called as callback(run name, runs done, runs in all) before the first and between compiled calls.
        track: called with each `mixjax.sweeps.progress.Record`; `progress.jsonl` has them too.

    Returns:
        The folder written.

    Raises:
        ConfigError: `out` holds something that is no result.
        mixjax.sweeps.checkpoints.ChangedError: `<out>.chunks` holds chunks of another config, code or data; says which.
        ReportError: the figure, the claims or the summary raised. The metrics and the config are then in
          `<out>.partial`, and an earlier result in `out` is untouched.
    """
    out = results_lib.check_out(Path("results", config.name) if out is None else out)
    partial = results_lib.check_out(out.with_name(f"{out.name}.partial"))
    config.to_toml()  # what cannot be written should fail now, not after the runs
    chunks = out.with_name(f"{out.name}.chunks")
    progress = chunks / "progress.jsonl"
    tracks = [] if jax.process_index() else [json_lines(progress)]
    tracks += [] if track is None else [track]
    results, first = _sweeps(config, chunks, callback, together(*tracks))
    if jax.process_index():
        return out  # every host holds the same results, the first one writes them
    failures: dict[str, str] = {}

    def attempt(part: str, function: Callable, otherwise: Any) -> Any:
        try:
            return function()
        except Exception:
            failures[part] = traceback.format_exc()
            return otherwise

    figure = attempt("figure", lambda: results_lib.render(first.figure(results)), None)
    claims = attempt("claims", lambda: rows(first.claims(results)), [])
    summary = attempt("summary", lambda: first.summary(results), "") if first.summary else ""
    out = partial if failures else out
    results_lib.write(
        out, config, results, figure=figure, claims=claims, summary=summary, failures=failures, progress=progress
    )
    if failures:
        raise ReportError(out, failures)
    shutil.rmtree(chunks, ignore_errors=True)
    return out


def _sweeps(config: Config, chunks: Path, callback: Callable | None, track: Callable):
    """Every run's metrics, and the first run's experiment without its data."""
    results: Results = {}
    first = None
    for number, item in enumerate(config.runs):
        experiment, arguments = _sweep_of(config, item)
        report = None
        if callback is not None:
            report = functools.partial(callback, item.name)
            report(0, _num_runs(arguments))
        with _axes_are_numbers(config, experiment):
            dataset = sweep(
                experiment.train,
                callback=report,
                track=functools.partial(_record, track, item.name),
                checkpoint=chunks / f"run_{number:03d}",
                identity={"run": item.name, "config": as_json(item.values)},
                **arguments,
            )
        for metric in dataset.data_vars:
            dataset[metric].attrs["units"] = experiment.units.get(metric, "")
        results[item.name] = dataset
        first = first or dataclasses.replace(experiment, data=None)
    return results, first


def _sweep_of(config: Config, item: Run) -> tuple[Experiment, dict[str, Any]]:
    """A run's experiment, and what it hands to `sweep` or `plan` beside `train`."""
    experiment = config.function(item.values)
    if not isinstance(experiment, Experiment):
        raise TypeError(f"{config.experiment} must return an Experiment, got {type(experiment).__name__}")
    if experiment.points and config.sweep.points:
        raise ConfigError(f"{config.path}: {config.experiment} has points of its own; leave [sweep] points out")
    return experiment, {
        "seeds": config.sweep.seeds,
        "axes": config.sweep.axes,
        "points": experiment.points or config.sweep.points,
        "data": experiment.data,
        "dims": experiment.dims,
        "coords": experiment.coords,
        "first_seed": config.sweep.first_seed,
        "chunk": config.sweep.chunk,
        "vectorize": config.sweep.vectorize,
    }


def _num_runs(arguments: Mapping[str, Any]) -> int:
    columns = list(arguments["points"].values())[:1]
    return arguments["seeds"] * math.prod(map(len, [*arguments["axes"].values(), *columns]))


@contextlib.contextmanager
def _axes_are_numbers(config: Config, experiment: Experiment):
    """Says which fields that the config sweeps over `train` needs before it is compiled: for a shape, a loop, a branch.

    Found by tracing with one of them unknown at a time.
    """
    try:
        yield
    except TypeError as error:  # as all of JAX's errors of a traced value that must be known
        swept = {name: values[0] for name, values in (config.sweep.axes | config.sweep.points).items()}
        train = experiment.train.init if isinstance(experiment.train, Segments) else experiment.train

        def traces(unknown: dict[str, Any]) -> bool:
            try:
                jax.eval_shape(
                    lambda key, given, data: train(key, {**swept, **given}, data),
                    jax.random.key(0),
                    {name: jax.numpy.asarray(value) for name, value in unknown.items()},
                    experiment.data,
                )
            except Exception:
                return False
            return True

        needed = [name for name, value in swept.items() if not traces({name: value})]
        if not needed or experiment.points or not traces({}):
            raise
        raise ConfigError(
            f"{config.path}: [sweep] {', '.join(needed)}: sets a shape, a number of steps or a branch in "
            f"{config.experiment}, and cannot be an axis; use [[run]] tables, which are compiled one by one"
        ) from error


def _record(track: Callable, name: str, record: Record) -> None:
    track({"run": name, **record})
