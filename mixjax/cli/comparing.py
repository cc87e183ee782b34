"""Does the work of ``mixjax compare``: turns result folders into a table and a figure over paired seeds."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer

from mixjax.cli.choosing import at_best_settings, setting_columns
from mixjax.cli.select import along_dim, as_number, known_label, metric_arrays, select_labels, settle, unit_text
from mixjax.cli.terminal import Mistake, output_file
from mixjax.files import write_whole, writing
from mixjax.runner import results
from mixjax.runner.comparison import paired_table
from mixjax.runner.configs.tables import dotted
from mixjax.runner.frames import with_vector_texts
from mixjax.runner.pages.comparison import comparison_page
from mixjax.runner.results import Results
from mixjax.runner.texts import aligned, mean_text

__all__ = ["compare_results", "values_by_key"]

_WIDTH = 110
_FORMATS = (".png", ".pdf", ".svg")


def compare_results(
    paths: Sequence[Path],
    *,
    metric: str | None,
    better: str | None,
    along: str | None,
    baseline: str | None,
    select: Sequence[str],
    mean: Sequence[str],
    best: str | None,
    out: Path | None,
    html: bool = False,
) -> None:
    """Prints the table, and draws the figure where ``out`` says so.

    The arguments are those of the command, None where an option is not given.

    Args:
        paths: result folders.
        metric: name of the metric.
        better: "lower" or "higher".
        along: the dimension whose labels are compared.
        baseline: the label that the others are compared with.
        select: texts "DIM=LABEL".
        mean: dimensions to average over.
        best: the metric by which each label's setting is chosen.
        out: the file of the figure or the page.
        html: also write ``comparison.html``.

    Raises:
        Mistake: an option that does not fit the results.
        OSError: a folder that holds no result.
    """
    outputs = [] if out is None else [output_file("--out", out, (*_FORMATS, ".html"))]
    if html:
        outputs.append(output_file("--html", Path("comparison.html"), (".html",)))
    names = _names(paths)
    folders = {}
    for name, path in zip(names, paths, strict=True):
        folders[name] = {run: with_vector_texts(dataset) for run, dataset in results.read(path).items()}
    arrays = metric_arrays(folders, metric)
    metric, unit = str(arrays[0].name), unit_text(arrays[0])
    # Two comparisons, not `in`: type checkers follow these.
    if better != "lower" and better != "higher":
        got = f", got {better!r}" if better else ""
        raise Mistake(f"--better: must say if lower or higher {metric}{unit} is better{got}")
    arrays, selected = select_labels(arrays, select, along, baseline)
    along = along_dim(arrays, along)
    frame, settled = settle(arrays, mean, along, keep=selected)
    chosen = None
    if best is not None:
        settings = setting_columns(arrays, along, selected)
        judges = _judges(folders, best, select, mean, along=along, baseline=baseline, keep=selected)
        chosen = at_best_settings(frame, metric, judges, best, along=along, settings=settings, better=better)
        frame = chosen.frame
    labels = list(dict.fromkeys(frame[along]))
    baseline = labels[0] if baseline is None else known_label(f"--baseline {baseline}", along, baseline, labels)
    if len(labels) < 2:
        raise Mistake(f"--along {along}: nothing to compare, its only label is {baseline}")
    # The labels have been checked by now, so a ValueError means that no seeds can be paired.
    try:
        table = paired_table(frame, metric, along, baseline=baseline, better=better)
    except ValueError as error:
        raise Mistake(error) from error

    where = "; ".join([", ".join(names), *settled])
    title = f"{metric}{unit}: {along} compared with {baseline}, {better} is better"
    typer.echo(title)
    typer.echo("\n".join(textwrap.wrap(where, _WIDTH)) + "\n")
    if chosen is not None:
        typer.echo("\n".join([*textwrap.wrap(chosen.head, _WIDTH), *(f"  {line}" for line in chosen.settings)]) + "\n")
    typer.echo("\n".join(aligned(_cells(table))) + "\n")
    notes = [*_notes(table), *_config_notes(names, paths)]
    if any(results.read_claims(path) for path in paths):
        notes.append("claims of a report are judged by rules of their own, without this correction, and may differ")
    typer.echo("\n".join(line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")))
    without = [run for runs in folders.values() for run, dataset in runs.items() if metric not in dataset]
    if without:
        typer.echo(f"without {metric}: {', '.join(without)}")
    for path in outputs:
        if path.suffix == ".html":
            settings = [] if chosen is None else [chosen.head, *chosen.settings]
            page = comparison_page(title, where, table, _cells(table), notes=notes, settings=settings)
            write_whole(path, page)
        else:
            figure = _forest(table, f"{metric} minus that of {baseline}{unit}, {better} is better", where)
            with writing(path):
                figure.savefig(path, dpi=150)
        typer.echo(path)


def _judges(
    folders: Mapping[str, Results],
    best: str,
    select: Sequence[str],
    mean: Sequence[str],
    *,
    along: str,
    baseline: str | None,
    keep: Sequence[str],
) -> pd.DataFrame:
    """Returns the table of the metric that chooses each label's setting, which may lack dimensions of the other one."""
    arrays = metric_arrays(folders, best, option="--best")
    known = {str(name) for values in arrays for name in (*values.dims, *values.coords)}
    if along not in known:
        raise Mistake(f"--best {best}: does not have {along}, which is compared")
    own = [text for text in select if text.partition("=")[0] in known]
    arrays, _ = select_labels(arrays, own, along, baseline)
    return settle(arrays, [dim for dim in mean if dim in known], along, keep=keep)[0]


def _names(paths: Sequence[Path]) -> list[str]:
    """Names each folder: by its last part, or by its path where two folders share their last part."""
    resolved = [path.resolve() for path in paths]
    twice = [path for i, path in enumerate(paths) if resolved[i] in resolved[:i]]
    if twice:
        raise Mistake(f"{twice[0]}: given twice")
    last = [path.name for path in resolved]
    return [name if last.count(name) == 1 else path.as_posix() for name, path in zip(last, paths, strict=True)]


def _label_columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns in front of the statistics, which say what a row is about."""
    columns = list(table.columns)
    return columns[: columns.index("value")]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """Returns the table as texts, its header first."""
    dims = _label_columns(table)
    lines = [[*dims, "mean", "baseline", "difference", "better in", "p (Holm)", "verdict", "left out", "unpaired"]]
    for _, row in table.iterrows():
        # The two means get as many decimals as the error of their difference allows.
        means = [mean_text(mean, row.stderr).partition(" ")[0] for mean in (row.value, row.baseline)]
        difference = mean_text(row.difference, row.stderr)
        p_value = "-" if np.isnan(row.p_holm) else f"{row.p_holm:.2g}"
        numbers = [*means, difference, _wins(row), p_value]
        lines.append([*row[dims], *numbers, row.verdict, str(row.left_out), str(row.unpaired)])
    return lines if table.unpaired.any() else [line[:-1] for line in lines]


def _wins(row: pd.Series) -> str:
    """Says in how many seeds a label is better than the baseline, such as "3 of 4, 1 tie"."""
    text = f"{row.wins} of {row.num_seeds}"
    if row.ties == 1:
        return f"{text}, 1 tie"
    return f"{text}, {row.ties} ties" if row.ties else text


def _notes(table: pd.DataFrame) -> list[str]:
    """Says what the reader must know about the numbers."""
    notes = [
        "difference: mean ± standard error over paired seeds; left out: seeds in which one of the two values is not "
        "finite",
        f"p: two-sided paired t-test, Holm-corrected for the number of tests in the table, {table.p_value.count()}",
        "verdict: better or worse where this p is at most 0.05, from three seeds on",
    ]
    if (table.num_seeds < 2).any():
        notes.append("-: a standard error and a test need two paired seeds")
    if ((table.stderr == 0) & (table.difference != 0)).any():
        notes.append("± 0: the difference is the same in every seed, up to rounding; a t-test needs one that varies")
    if table.unpaired.any():
        notes.append("unpaired: seeds that only the label has, or only the baseline; left aside")
    return notes


def _config_notes(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Says in what the config of each result differs from that of the first one."""
    first, *others = [values_by_key(results.read_config(path)) for path in paths]
    notes = []
    for name, values in zip(names[1:], others, strict=True):
        keys = [key for key in dict.fromkeys([*first, *values]) if first.get(key) != values.get(key)]
        changes = ", ".join(f"{key} = {values.get(key, 'unset')} ({first.get(key, 'unset')})" for key in keys)
        notes.append(f"{name} differs from {names[0]} in " + (changes or "nothing of its config"))
    return notes


def values_by_key(config: dict[str, Any]) -> dict[str, Any]:
    """Flattens a config into one table with dotted keys. The keys of a ``[[run]]`` stand below the run's name.

    Args:
        config: a config as TOML has it.

    Returns:
        Dotted key -> value.

    Example:
        >>> values_by_key({"steps": 5, "run": [{"name": "MLP", "width": 1}]})
        {'steps': 5, 'run.MLP.width': 1}
    """
    return dotted(_lists_as_tables(config))


def _lists_as_tables(value: Any) -> Any:
    """Replaces each list of tables by one table, whose keys are the tables' names, or else their positions."""
    if isinstance(value, dict):
        return {key: _lists_as_tables(item) for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        tables = {}
        for i, item in enumerate(value):
            rest = {key: inner for key, inner in item.items() if key != "name"}
            tables[str(item.get("name", i))] = _lists_as_tables(rest)
        return tables
    return value


def _forest(table: pd.DataFrame, xlabel: str, title: str) -> Any:
    """Draws a forest plot: the differences with their intervals, one row each, beside a line at zero."""
    from matplotlib.figure import Figure

    dims = _label_columns(table)
    labels = [_row_label(dims, texts) for texts in table[dims].to_numpy().tolist()]
    rows = np.arange(len(labels))
    # About 0.075 inches a letter of the labels at the left, beside 6 inches for the rest.
    width = 6 + 0.075 * max(map(len, labels))
    # Not by pyplot, which would keep every figure in memory.
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
    # An inch holds about 13 letters of this size.
    caption = textwrap.wrap(f"{title}; {count} paired seeds, 95 % interval of each", int(13 * width))
    figure.suptitle("\n".join(caption), fontsize=10)
    return figure


def _row_label(dims: Sequence[str], texts: Sequence[str]) -> str:
    """Returns what the figure writes beside a row; a dimension that the row does not have is left out."""
    return ", ".join(_named(dim, text) for dim, text in zip(dims, texts, strict=True) if text)


def _named(dim: str, text: str) -> str:
    """Returns a label as the figure shows it: a number with its dimension, a text by itself."""
    return text if isinstance(as_number(text), str) else f"{dim} {text}"
