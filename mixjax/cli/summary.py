"""What `mixjax show` says: a result folder in one screen."""

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from mixjax.cli.compared import flat
from mixjax.cli.select import shorten, unit_text
from mixjax.cli.terminal import aligned
from mixjax.runner import results
from mixjax.runner.claims import claims_table
from mixjax.runner.comparison import divergent_runs, mean_stderr, mean_text
from mixjax.runner.frames import final, label_texts, to_frame

_WIDTH = 96  # beside the names on the left
_ROWS = 20  # of one table of metrics
_METRICS = 4  # beside each other in it


def summary(path: Path) -> list[str]:
    """The lines: of runs, claims and time, then tables of final metrics."""
    runs = results.read(path)
    meta = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    claims = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    parts = [
        ("result", [f"{path.as_posix()}, {config.get('experiment', 'of no experiment')}"]),
        ("config", _config(config)),
        ("runs", _runs(runs)),
        ("not finite", _diverged(runs)),
        ("claims", _claims(claims)),
        ("time", _time(meta)),
        ("in Python", [f'import mixjax.runner.results; runs = mixjax.runner.results.read("{path.as_posix()}")']),
    ]
    rows = [(name if i == 0 else "", line) for name, lines in parts for i, line in enumerate(lines)]
    return [*aligned(rows), *_metrics(runs)]


def _config(config: Mapping[str, Any]) -> list[str]:
    own = {key: value for key, value in config.items() if key not in ("experiment", "sweep")}
    text = ", ".join(f"{key}={json.dumps(value, default=str)}" for key, value in flat(own).items())
    return wrap(text, _WIDTH, max_lines=4, placeholder=" ... (config.toml)") or ["no values of its own"]


def _runs(runs: results.Results) -> list[str]:
    """How many runs, of what: the product of [[run]] tables, axes and seeds."""
    first = next(iter(runs.values()))
    bad = divergent_runs(first)
    factors = [f"{len(runs)} [[run]] ({shorten(list(runs))})"] if len(runs) > 1 else []
    factors += [f"{bad.sizes[d]} {d} ({shorten(label_texts(bad, d))})" for d in bad.dims if d != "seed"]
    seeds = label_texts(bad, "seed")
    factors.append(f"{len(seeds)} seeds ({seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f"1 seed ({seeds[0]})")
    total = sum(divergent_runs(dataset).size for dataset in runs.values())
    return wrap(f"{' × '.join(factors)} = {total}" if len(factors) > 1 else factors[0], _WIDTH)


def _diverged(runs: results.Results) -> list[str]:
    """Of each run with a value that is not finite: in how many, and in which metrics."""
    lines = []
    for name, dataset in runs.items():
        bad = divergent_runs(dataset)
        if bad.any():
            each = {metric: int(divergent_runs(dataset[[metric]]).sum()) for metric in dataset.data_vars}
            where = ", ".join(f"{metric} {count}" for metric, count in each.items() if count)
            lines += wrap(f"{name}: {int(bad.sum())} of {bad.size} runs ({where})", _WIDTH, subsequent_indent="  ")
    return lines or ["none"]


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["none"]
    counts = Counter(row["holds"] for row in rows)
    lines = [f"{len(rows)}: {counts[True]} yes, {counts[False]} no, {counts[None]} undecided"]
    texts = [("claim", "holds", "value", "threshold")]
    texts += [text for text, row in zip(claims_table(rows), rows, strict=True) if row["holds"] is not True]
    return lines + aligned(texts) * (len(texts) > 1)


def _time(meta: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {meta['versions'][name]}" for name in ("mixjax", "jax"))
    runs, computed, seconds, compiling = (
        meta[key] for key in ("num_runs", "num_computed", "run_seconds", "compile_seconds")
    )
    last = f"{runs} runs" if computed == runs else f"the last {computed} of {runs} runs"
    return [
        f"{last} in {seconds:.3g} s after {compiling:.3g} s of compilation",
        f"on {meta['device']}; {versions}",
    ]


def _metrics(runs: results.Results) -> list[str]:
    """Tables of final means: a row for each run, axis value and text label, a column for each metric."""
    tables: dict[tuple[str, ...], dict[str, dict[tuple[str, ...], str]]] = {}  # dims -> metric -> labels -> text
    last: dict[str, dict[str, None]] = {}
    for run, dataset in runs.items():
        for name, values in dataset.data_vars.items():
            if values.dtype.kind not in "biuf":
                continue
            values, at = final(values)
            for dim, label in at.items():
                last.setdefault(dim, {})[label] = None
            values = values.expand_dims(run=[run]) if len(runs) > 1 else values
            frame = to_frame(values, str(name))
            dims = [column for column in frame.columns if column not in ("seed", name)]
            cells = tables.setdefault(tuple(dims), {}).setdefault(f"{name}{unit_text(values)}", {})
            groups = frame.groupby(dims, sort=False) if dims else [((), frame)]
            for labels, group in groups:
                mean, stderr, count = mean_stderr(group[name])
                left = f" ({count} of {len(group)})" if count < len(group) else ""
                cells[tuple(labels)] = mean_text(mean, stderr) + left
    settled = [f"{dim} = {', '.join(labels)} (last)" for dim, labels in last.items()]
    lines = ["", *wrap("; ".join(["mean ± standard error over seeds", *settled]), _WIDTH)]
    for dims, columns in tables.items():
        names = list(columns)
        for start in range(0, len(names), _METRICS):
            block = {name: columns[name] for name in names[start : start + _METRICS]}
            rows = list(dict.fromkeys(labels for cells in block.values() for labels in cells))
            texts = [[*labels, *(cells.get(labels, "") for cells in block.values())] for labels in rows]
            lines += ["", *aligned([[*dims, *block], *texts[:_ROWS]])]
            if len(rows) > _ROWS:
                lines.append(f"... {len(rows) - _ROWS} more rows")
    return lines
