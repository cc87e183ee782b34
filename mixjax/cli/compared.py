"""What `mixjax compare` does: paired seeds, from result folders to a table and a figure."""

import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from mixjax.cli.select import along_dim, as_number, known_label, metric_arrays, settle, unit_text
from mixjax.cli.select import select as selected
from mixjax.cli.terminal import Mistake, aligned
from mixjax.runner import results
from mixjax.runner.comparison import mean_text, paired_table

_WIDTH = 110
_FORMATS = (".png", ".pdf", ".svg")


def compare(
    paths: Sequence[Path],
    metric: str | None,
    better: str | None,
    along: str | None,
    baseline: str | None,
    select: Sequence[str],
    mean: Sequence[str],
    out: Path | None,
) -> None:
    """Prints the table, and draws the figure where `out` says so; the arguments are the command's options."""
    if out is not None and out.suffix not in _FORMATS:
        raise Mistake(f"--out {out}: must end in {', '.join(_FORMATS)}")
    names = _names(paths)
    folders = dict(zip(names, map(results.read, paths), strict=True))
    arrays = metric_arrays(folders, metric)
    metric, unit = str(arrays[0].name), unit_text(arrays[0])
    without = [run for runs in folders.values() for run, dataset in runs.items() if metric not in dataset]
    if better not in ("lower", "higher"):
        got = f", got {better!r}" if better else ""
        raise Mistake(f"--better: must say if lower or higher {metric}{unit} is better{got}")
    arrays, dims = selected(arrays, select, along, baseline)
    along = along_dim(arrays, along)
    frame, at = settle(arrays, mean, along, keep=dims)
    labels = list(dict.fromkeys(frame[along]))
    baseline = labels[0] if baseline is None else known_label(f"--baseline {baseline}", along, baseline, labels)
    if len(labels) < 2:
        raise Mistake(f"--along {along}: nothing to compare, its only label is {baseline}")
    try:
        table = paired_table(frame, metric, along, baseline=baseline, better=better)
    except ValueError as error:
        raise Mistake(error) from error
    where = "; ".join([", ".join(names), *at])
    typer.echo(f"{metric}{unit}: {along} compared with {baseline}, {better} is better")
    typer.echo("\n".join(textwrap.wrap(where, _WIDTH)) + "\n")
    typer.echo("\n".join(aligned(_cells(table))) + "\n")
    typer.echo("\n".join(_notes(table, names, paths)))
    if without:
        typer.echo(f"without {metric}: {', '.join(without)}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure = _forest(table, f"{metric} minus that of {baseline}{unit}, {better} is better", where)
        figure.savefig(out, dpi=150)
        typer.echo(out)


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each folder: its last part, where that is unique."""
    resolved = [path.resolve() for path in paths]
    twice = [path for i, path in enumerate(paths) if resolved[i] in resolved[:i]]
    if twice:
        raise Mistake(f"{twice[0]}: given twice")
    last = [path.name for path in resolved]
    return [name if last.count(name) == 1 else path.as_posix() for name, path in zip(last, paths, strict=True)]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """The table as texts, its header first."""
    dims = list(table.columns[: table.columns.get_loc("value")])
    lines = [[*dims, "mean", "baseline", "difference", "better in", "p (Holm)", "left out", "unpaired"]]
    for _, row in table.iterrows():
        spread = row.difference, row.stderr
        levels = [mean_text(level, row.stderr).partition(" ")[0] for level in (row.value, row.baseline)]
        ties = f", {row.ties} tie{'s' * (row.ties > 1)}" if row.ties else ""
        wins = f"{row.wins} of {row.num_seeds}{ties}"
        p_value = "-" if np.isnan(row.p_holm) else f"{row.p_holm:.2g}"
        lines.append([*row[dims], *levels, mean_text(*spread), wins, p_value, str(row.left_out), str(row.unpaired)])
    return lines if table.unpaired.any() else [line[:-1] for line in lines]


def _notes(table: pd.DataFrame, names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """What the reader must know about the numbers, and what differs between the configs."""
    notes = [
        "difference: mean ± standard error over paired seeds; left out: seeds in which one of the two is not finite",
        f"p: two-sided paired t-test, Holm-corrected for the number of tests in the table, {table.p_value.count()}",
    ]
    if (table.num_seeds < 2).any():
        notes.append("-: a standard error and a test need two paired seeds")
    if ((table.stderr == 0) & (table.difference != 0)).any():
        notes.append("± 0: the difference is the same in every seed; p = 0 is the limit of the test")
    if table.unpaired.any():
        notes.append("unpaired: seeds that only one of the two has; left aside")
    first, *others = [flat(tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))) for path in paths]
    for name, config in zip(names[1:], others, strict=True):
        keys = [key for key in dict.fromkeys([*first, *config]) if first.get(key) != config.get(key)]
        changes = ", ".join(f"{key} = {config.get(key, 'unset')} ({first.get(key, 'unset')})" for key in keys)
        notes.append(f"{name} differs from {names[0]} in " + (changes or "nothing of its config"))
    return [line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")]


def flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """A config's values by dotted key; [[run]] tables by name."""
    if isinstance(table, list) and table and all(isinstance(item, dict) for item in table):
        table = {
            item.get("name", str(i)): {k: v for k, v in item.items() if k != "name"} for i, item in enumerate(table)
        }
    if not isinstance(table, dict):
        return {prefix: table}
    return {k: v for key, item in table.items() for k, v in flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _forest(table: pd.DataFrame, xlabel: str, title: str) -> Any:
    """The differences with their intervals, one row each, beside a line at zero."""
    from matplotlib.figure import Figure

    dims = list(table.columns[: table.columns.get_loc("value")])
    labels = [", ".join(_named(dim, text) for dim, text in row[dims].items() if text) for _, row in table.iterrows()]
    rows = np.arange(len(labels))
    width = 6 + 0.075 * max(map(len, labels))
    figure = Figure(figsize=(width, 1.5 + 0.3 * len(labels)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0.0, color="0.4", lw=1)
    axis.hlines(rows, table.low, table.high, color="C0", lw=1.6)
    axis.plot(table.difference, rows, "o", color="C0", ms=5)
    axis.set(yticks=rows, yticklabels=labels, ylim=(len(labels) - 0.4, -0.6), xlabel=xlabel)
    axis.grid(axis="x", alpha=0.3, lw=0.5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    seeds = sorted({*table.num_seeds})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    caption = textwrap.wrap(f"{title}; {count} paired seeds, 95 % interval of each", int(13 * width))
    figure.suptitle("\n".join(caption), fontsize=10)
    return figure


def _named(dim: str, text: str) -> str:
    """A label as the figure shows it: numbers with their dimension."""
    return text if isinstance(as_number(text), str) else f"{dim} {text}"
