"""Reads tables of mixtures and losses, CSV or Parquet, as Olmix and RegMix keep them."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.design.runs import Swarm, as_swarm
from mixjax.files import local_path

__all__ = ["Table", "is_parquet", "read_table", "read_tables"]

# Columns that say which run a row is, the most telling first. All of them are no domains and no metrics.
_KEYS = ("run", "run_id", "index", "name")


class Table(NamedTuple):
    """Holds a file's columns, the runs' names if it has them, and the line on which each row stands."""

    path: Path
    frame: Any
    columns: tuple[str, ...]
    lines: np.ndarray

    def row(self, i: int, key: str | None = None) -> str:
        """Names a row as errors call it."""
        run = f" (run {self.frame[key].iloc[i]})" if key else ""
        return f"{self.path}, {self.unit} {self.lines[i]}{run}"

    @property
    def unit(self) -> str:
        """Names what rows are counted by: lines of a text, or rows of a Parquet file."""
        return "row" if is_parquet(self.path) else "line"

    def number(self, i: int, column: str, key: str | None = None) -> float:
        """Reads a number; an empty cell is NaN."""
        text = self.frame[column].iloc[i]
        try:
            return float(text) if text.strip() else np.nan
        except ValueError:
            raise ValueError(f"{self.row(i, key)}: {column!r} must be a number, got {text!r}.") from None


def read_tables(
    ratios: str | os.PathLike, metrics: str | os.PathLike, *, drop: bool = False, budget: str = "budget"
) -> Swarm:
    """Reads the mixtures and the losses of a swarm from two files, CSV or, if their names end so, Parquet.

    Rows belong together by the first of the columns "run", "run_id", "index" and "name" that both files have, or by
    their order if a file has none of them. A first column without a name, as pandas writes it, is an index. These
    columns and others without a name are left out; all others are domains, or metrics.

    ================ ======================================= =======================================
    written by       mixtures                                losses
    ================ ======================================= =======================================
    Olmix, a swarm   ``run, name, index, web, code, ...``    ``run, name, index, hellaswag, ...``
    Olmix, by hand   ``run_id, web, code, ...``              ``run_id, hellaswag, ...``
    RegMix           ``index, train_web, train_code, ...``   ``index, metric/web_val_loss, ...``
    ================ ======================================= =======================================

    Args:
        ratios: the file of the mixtures, a row for each run; shares sum to one within 0.01.
        metrics: the file of the losses; lower is better.
        drop: whether what says nothing of the mixture is left out with a warning, as Olmix does: runs that stand in one
            of the files only or lack a loss, and domains that are 0 in every run. By default it is an error.
        budget: the column with the tokens that each run was trained on, if one of the files has it. Where it is the
            same in all runs it is left out.

    Returns:
        The swarm, in the order of the mixtures.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no table, the same file twice, files that name their runs by different columns, a run that only one
            file has or that stands twice, a column that stands twice, a cell that is no number, a budget column that
            both files have, or neither though another name than "budget" was given, and what
            :func:`mixjax.design.as_swarm` refuses; the error names the line or the column.
        ImportError: pandas is missing (extra ``experiments``), or pyarrow for Parquet (extra ``parquet``).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "ratios.csv").write_text("run,web,code\\na,0.75,0.25\\nb,0.5,0.5\\n")
        >>> _ = (folder / "metrics.csv").write_text("run,web_loss\\nb,2.0\\na,1.0\\n")
        >>> read_tables(folder / "ratios.csv", folder / "metrics.csv").losses.tolist()
        [[1.0], [2.0]]

    References:
        https://github.com/allenai/olmix, ``olmix/fit/loaders.py``; https://github.com/sail-sg/regmix, ``data/``.
    """
    shares, losses = read_table(local_path("ratios", ratios)), read_table(local_path("metrics", metrics))
    if os.path.samefile(shares.path, losses.path):
        raise ValueError(f"metrics must be the file of the losses, got {losses.path}, the file of the mixtures.")
    paid, shares, losses = _without_budget(shares, losses, budget)
    own, others = ([name for name in _KEYS if name in table.frame] for table in (shares, losses))
    key = next((name for name in own if name in others), None)
    if key is None and own and others:
        # By their order, rows of different runs could come together unseen.
        raise ValueError(
            f"{shares.path} names its runs by {own[0]!r} and {losses.path} by {others[0]!r}; they need the same column."
        )
    if key is None:
        if len(shares.frame) != len(losses.frame):
            raise ValueError(
                f"{shares.path} and {losses.path} share no column {' or '.join(map(repr, _KEYS))} and have "
                f"{len(shares.frame)} and {len(losses.frame)} rows; they cannot be matched."
            )
        rows = order = np.arange(len(shares.frame))
    else:
        rows, order = _matched(shares, losses, key, drop)
    mixtures, values = _numbers(shares, key)[rows], _numbers(losses, key)[order]
    domains = list(shares.columns)
    tokens = None
    if paid is not None:
        at = rows if paid is shares else order
        tokens = np.array([paid.number(int(i), budget, key) for i in at])
    if drop:
        complete = ~np.isnan(values).any(axis=1)
        tokens = None if tokens is None else tokens[complete]
        rows, order, mixtures, values = rows[complete], order[complete], mixtures[complete], values[complete]
        used = np.flatnonzero((mixtures != 0).any(axis=0))
        kept = [domains[d] for d in used]
        _warn_of_dropped(shares, losses, len(rows), [name for name in domains if name not in kept])
        mixtures, domains = mixtures[:, used], kept
    if tokens is not None and np.ptp(tokens) == 0:
        tokens = None

    def budget_row(i: int) -> str:
        return shares.row(int(rows[i]), key) if paid is shares else losses.row(int(order[i]), key)

    return as_swarm(
        mixtures,
        values,
        domains=domains,
        metrics=losses.columns,
        budgets=tokens,
        mixture_row=lambda i: shares.row(int(rows[i]), key),
        loss_row=lambda i: losses.row(int(order[i]), key),
        budget_row=budget_row,
    )


def read_table(path: Path) -> Table:
    """Reads a file, CSV or Parquet; all cells are texts.

    Args:
        path: the file.

    Returns:
        The table. Its ``columns`` are those that do not say which run a row is.

    Raises:
        OSError: the file cannot be read.
        ValueError: no table, a column that stands twice, or a row of another length; the error names the line.
        ImportError: pandas is missing (extra ``experiments``).
    """
    with requires("experiments", "mixjax.design.read_table"):
        import pandas as pd

    if is_parquet(path):
        return _read_parquet(path)
    try:
        # pandas would rename a column that stands twice, and leaves out empty lines without saying which.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is no table of comma-separated values ({error}).") from None
    if len(rows) < 2:
        raise ValueError(f"{path}: must have a header and a row for each run, got {len(rows)} lines.")
    header = [name.strip() for name in rows[0][1]]
    twice = next((name for i, name in enumerate(header) if name and name in header[:i]), None)
    if twice is not None:
        raise ValueError(f"{path}: the column {twice!r} stands twice.")
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise ValueError(f"{path}: must have a header with commas between the names, got {other!r} in {header[0]!r}.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: must have {len(header)} cells like the header, got {len(row)}.")
    return _table(path, pd.DataFrame([row for _, row in rows[1:]], columns=header, dtype=str), rows[1:])


def is_parquet(path: Path) -> bool:
    """Tells whether a file is Parquet, by its name."""
    return path.suffix.lower() in (".parquet", ".pq")


def _read_parquet(path: Path) -> Table:
    with requires("parquet", "Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        frame = pq.read_table(path).to_pandas()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path}: is no Parquet table ({str(error).splitlines()[0]}).") from None
    # An index with a name, such as RegMix's, is a column; one without is the number of the row.
    frame = frame.reset_index(drop=frame.index.name is None)
    if frame.empty:
        raise ValueError(f"{path}: must have a row for each run, got none.")
    frame.columns = frame.columns.map(str)
    # A missing cell is empty text, as it is in CSV; numbers keep all digits.
    text = frame.astype(object).where(frame.notna(), "").map(str)
    return _table(path, text, [(i, None) for i in range(len(text))])


def _table(path, frame, rows):
    # The first column of a frame that pandas has written is its index, and has no name.
    if _is_nameless(frame.columns[0]) and "index" not in frame.columns:
        frame = frame.rename(columns={frame.columns[0]: "index"})
    header = list(frame.columns)
    columns = tuple(name for name in header if not _is_nameless(name) and name not in _KEYS)
    if not columns:
        raise ValueError(f"{path}: has no column besides {', '.join(filter(None, header)) or 'one without a name'}.")
    return Table(path, frame, columns, np.array([line for line, _ in rows]))


def _is_nameless(column):
    return not column or column.startswith("Unnamed:")


def _without_budget(shares: Table, losses: Table, name: str) -> tuple[Table | None, Table, Table]:
    """Finds the file that has the column of budgets, if one has; returns it, and both files without the column."""
    having = [table for table in (shares, losses) if name in table.columns]
    if not having and name == "budget":
        return None, shares, losses
    if len(having) != 1:
        have = "both have" if having else "neither has"
        raise ValueError(f"{shares.path} and {losses.path}: {have} the column {name!r}; one of them must have it.")
    kept = [table._replace(columns=tuple(c for c in table.columns if c != name)) for table in (shares, losses)]
    for table in kept:
        if not table.columns:
            raise ValueError(f"{table.path}: has no column besides {name!r}.")
    return kept[0] if having[0] is shares else kept[1], kept[0], kept[1]


def _warn_of_dropped(shares, losses, num_runs, domains):
    """Tells what was left out of two tables."""
    for table in (shares, losses):
        if len(table.frame) > num_runs:
            gone = len(table.frame) - num_runs
            warnings.warn(f"{table.path}: runs without a mixture or a loss are left out: {gone}.", stacklevel=3)
    if domains:
        warnings.warn(
            f"{shares.path}: domains of share 0 in every run are left out: {', '.join(domains)}.", stacklevel=3
        )


def _matched(shares: Table, losses: Table, key: str, drop: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of both tables that are of the same run, in the order of the mixtures."""
    places = []
    for table in (shares, losses):
        found: dict[str, int] = {}
        for i, run in enumerate(table.frame[key].str.strip()):
            if run in found:
                first = table.lines[found[run]]
                where = f"{table.path}, {table.unit} {table.lines[i]}"
                raise ValueError(f"{where}: the {key} {run!r} stands on {table.unit} {first} too.")
            found[run] = i
        places.append(found)
    both = [run for run in places[0] if run in places[1]]
    if drop and not both:
        raise ValueError(f"{shares.path} and {losses.path} have no {key} in common.")
    for table, other, mine, theirs in ((shares, losses, *places), (losses, shares, *places[::-1])):
        if drop:
            break
        for run, i in mine.items():
            if run not in theirs:
                raise ValueError(
                    f"{table.path}, {table.unit} {table.lines[i]}: {other.path} has no row of the {key} {run!r}."
                )
    return np.array([places[0][run] for run in both]), np.array([places[1][run] for run in both])


def _numbers(table: Table, key: str | None) -> np.ndarray:
    rows = range(len(table.frame))
    return np.array([[table.number(i, column, key) for column in table.columns] for i in rows])
