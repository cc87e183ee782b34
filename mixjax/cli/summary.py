"""Writes the lines that ``mixjax show`` prints: a result folder in one screen."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import xarray as xr

from mixjax.cli.comparing import values_by_key
from mixjax.cli.select import shorten, unit_text
from mixjax.runner import results
from mixjax.runner.comparison import divergent_runs
from mixjax.runner.frames import final_values, holds_numbers, label_texts, long_frame, with_vector_texts
from mixjax.runner.metadata import Meta
from mixjax.runner.texts import aligned, claim_texts, counted, mean_text, verdict
from mixjax.statistics import mean_stderr

__all__ = ["summary"]

_WIDTH = 96  # of the lines beside the names on the left
_MAX_ROWS = 20  # of one table of metrics
_MAX_METRICS = 4  # beside each other in one table


def summary(path: Path) -> list[str]:
    """Summarises a result folder.

    Args:
        path: the folder.

    Returns:
        Lines about runs, claims and time, then tables of final metrics.

    Raises:
        FileNotFoundError: the folder holds no result.
        OSError: its files are damaged.
    """
    runs = results.read(path)
    for name, dataset in runs.items():
        if not dataset.data_vars or any("seed" not in values.dims for values in dataset.data_vars.values()):
            raise OSError(f"{path}: metrics.json is damaged, run {name!r} lacks metrics over seeds; run it again")
    runs = {name: with_vector_texts(dataset) for name, dataset in runs.items()}
    meta, claims, config = results.read_meta(path), results.read_claims(path), results.read_config(path)
    parts = [
        ("result", [f"{path.as_posix()}, {config.get('experiment', 'of no experiment')}"]),
        ("config", _config(config)),
        ("runs", _runs(runs)),
        ("not finite", _diverged(runs)),
        ("claims", _claims(claims)),
        ("time", _time(meta)),
        ("in Python", [f'import mixjax; runs = mixjax.runner.results.read("{path.as_posix()}")']),
    ]
    # The name of a part stands before its first line only.
    rows = [(name if i == 0 else "", line) for name, lines in parts for i, line in enumerate(lines)]
    return [*aligned(rows), *_metrics(runs)]


def _config(config: Mapping[str, Any]) -> list[str]:
    own = {key: value for key, value in config.items() if key not in ("experiment", "sweep")}
    text = ", ".join(f"{key}={json.dumps(value, default=str)}" for key, value in values_by_key(own).items())
    return wrap(text, _WIDTH, max_lines=4, placeholder=" ... (config.toml)") or ["no values of its own"]


def _runs(runs: results.Results) -> list[str]:
    """Says how many runs there are, as the product of [[run]] tables, axes and seeds."""
    first = next(iter(runs.values()))
    # One value for each run: only the dimensions and their labels are used here.
    each_run = divergent_runs(first)
    dims = [str(dim) for dim in each_run.dims if dim != "seed"]
    factors = [f"{len(runs)} [[run]] ({shorten(list(runs))})"] if len(runs) > 1 else []
    factors += [f"{each_run.sizes[dim]} {dim} ({shorten(label_texts(each_run, dim))})" for dim in dims]
    seeds = label_texts(each_run, "seed")
    factors.append(f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f"1 seed ({seeds[0]})")
    total = sum(divergent_runs(dataset).size for dataset in runs.values())
    return wrap(f"{' × '.join(factors)} = {total}" if len(factors) > 1 else factors[0], _WIDTH)


def _diverged(runs: results.Results) -> list[str]:
    """Says for each [[run]] in how many of its runs, and in which metrics, a value is not finite."""
    lines = []
    for name, dataset in runs.items():
        bad = divergent_runs(dataset)
        if bad.any():
            each = {metric: int(divergent_runs(dataset[[metric]]).sum()) for metric in dataset.data_vars}
            where = ", ".join(f"{metric} {count}" for metric, count in each.items() if count)
            said = f"{name}: {bad.sum():,} of {counted(bad.size, 'run')} ({where})"
            lines += wrap(said, _WIDTH, subsequent_indent="  ")
    return lines or ["none"]


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counts the verdicts, and lists the claims that do not hold or are undecided."""
    if not rows:
        return ["none"]
    counts = Counter(row["holds"] for row in rows)
    lines = [f"{len(rows)}: " + ", ".join(f"{counts[holds]} {verdict(holds)}" for holds in (True, False, None))]
    others = claim_texts([row for row in rows if row["holds"] is not True])
    if others:
        lines += aligned([("claim", "holds", "value", "threshold"), *others])
    return lines


def _time(meta: Meta) -> list[str]:
    versions = ", ".join(f"{name} {meta.versions.get(name)}" for name in ("mixjax", "jax"))
    # A command that went on from chunks on disk has timed only the runs that it computed itself.
    runs, computed = meta.num_runs, meta.num_computed
    last = counted(runs, "run")
    if computed != runs:
        last = f"the last {computed:,} of {last}"
    return [
        f"{last} in {meta.run_seconds:.3g} s after {meta.compile_seconds:.3g} s of compilation",
        f"on {meta.device}; {versions}",
    ]


_Cells = dict[tuple[str, ...], str]
"""One column of a table: labels of a row -> the text of the row's cell."""


def _metrics(runs: results.Results) -> list[str]:
    """Makes tables of final means: a row for each run, axis value and text label, a column for each metric.

    Metrics with the same dimensions share a table.
    """
    # Dimensions -> metric -> its column.
    tables: dict[tuple[str, ...], dict[str, _Cells]] = {}
    # Dimension -> the labels taken, each once and in order: a dict serves as an ordered set.
    last: dict[str, dict[str, None]] = {}
    for run, dataset in runs.items():
        for name, values in dataset.data_vars.items():
            if not holds_numbers(values):
                continue
            values, at = final_values(values)
            for dim, label in at.items():
                last.setdefault(dim, {})[label] = None
            values = values.expand_dims(run=[run]) if len(runs) > 1 else values
            dims, cells = _column(values, str(name))
            tables.setdefault(dims, {}).setdefault(f"{name}{unit_text(values)}", {}).update(cells)
    settled = [f"{dim} = {', '.join(labels)} (last)" for dim, labels in last.items()]
    lines = ["", *wrap("; ".join(["mean ± standard error over seeds", *settled]), _WIDTH)]
    for dims, columns in tables.items():
        lines += _table(dims, columns)
    return lines


def _column(values: xr.DataArray, name: str) -> tuple[tuple[str, ...], _Cells]:
    """Returns the dimensions of a metric's rows, and the mean over seeds of each row."""
    frame = long_frame(values, name)
    dims = [column for column in frame.columns if column not in ("seed", name)]
    cells: _Cells = {}
    for labels, group in frame.groupby(dims, sort=False) if dims else [((), frame)]:
        mean, stderr, count = mean_stderr(group[name])
        finite = f" ({count} of {len(group)})" if count < len(group) else ""
        # pandas gives a tuple, since it gets a list of columns; its annotations do not say so.
        row = tuple(map(str, labels)) if isinstance(labels, tuple) else (str(labels),)
        cells[row] = mean_text(mean, stderr) + finite
    return tuple(dims), cells


def _table(dims: Sequence[str], columns: Mapping[str, _Cells]) -> list[str]:
    """Formats the metrics of a table, a few beside each other and the next ones below them."""
    lines = []
    names = list(columns)
    for start in range(0, len(names), _MAX_METRICS):
        block = {name: columns[name] for name in names[start : start + _MAX_METRICS]}
        rows = list(dict.fromkeys(labels for cells in block.values() for labels in cells))
        texts = [[*labels, *(cells.get(labels, "") for cells in block.values())] for labels in rows]
        lines += ["", *aligned([[*dims, *block], *texts[:_MAX_ROWS]])]
        if len(rows) > _MAX_ROWS:
            lines.append(f"... {len(rows) - _MAX_ROWS} more rows")
    return lines
