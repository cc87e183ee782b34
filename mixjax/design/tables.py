"""Reads and writes tables of mixtures and losses, CSV or Parquet, as Olmix and RegMix keep them."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mixjax.checks import check_choice, requires
from mixjax.design.runs import Swarm, as_mixtures, as_swarm
from mixjax.files import local_path, write_whole

__all__ = ["Table", "read_table", "read_tables", "write_mixtures", "write_tables"]

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
        return "row" if _is_parquet(self.path) else "line"

    def number(self, i: int, column: str, key: str | None = None) -> float:
        """Reads a number; an empty cell is NaN."""
        text = self.frame[column].iloc[i]
        try:
            return float(text) if text.strip() else np.nan
        except ValueError:
            raise ValueError(f"{self.row(i, key)}: {column!r} must be a number, got {text!r}.") from None


def read_tables(ratios: str | os.PathLike, metrics: str | os.PathLike, *, drop: bool = False) -> Swarm:
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

    Returns:
        The swarm, in the order of the mixtures.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no table, the same file twice, files that name their runs by different columns, a run that only one
            file has or that stands twice, a column that stands twice, a cell that is no number, and what
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
    if drop:
        complete = ~np.isnan(values).any(axis=1)
        rows, order, mixtures, values = rows[complete], order[complete], mixtures[complete], values[complete]
        used = np.flatnonzero((mixtures != 0).any(axis=0))
        kept = [domains[d] for d in used]
        _warn_of_dropped(shares, losses, len(rows), [name for name in domains if name not in kept])
        mixtures, domains = mixtures[:, used], kept
    return as_swarm(
        mixtures,
        values,
        domains=domains,
        metrics=losses.columns,
        mixture_row=lambda i: shares.row(int(rows[i]), key),
        loss_row=lambda i: losses.row(int(order[i]), key),
    )


def write_tables(
    swarm: Swarm,
    ratios: str | os.PathLike,
    metrics: str | os.PathLike,
    *,
    layout: Literal["olmix", "regmix"] = "olmix",
    runs: Sequence[str] | None = None,
) -> None:
    """Writes the mixtures and the losses of a swarm to two files, CSV or, if their names end so, Parquet.

    Args:
        swarm: what to write.
        ratios: the file of the mixtures.
        metrics: the file of the losses.
        layout: ``"olmix"`` writes the columns run, name and index, ``"regmix"`` an index from 1.
        runs: names of the runs; by default "run_0" and so on. Tables of RegMix have none.

    Raises:
        ValueError: another layout, or another number of names.
        OSError: a file that cannot be written.
        ImportError: pandas is missing (extra ``experiments``), or pyarrow for Parquet (extra ``parquet``).

    Example:
        >>> import mixjax, tempfile
        >>> swarm = mixjax.design.as_swarm([[0.75, 0.25], [0.5, 0.5]], [[1.0], [2.0]], domains=["web", "code"])
        >>> ratios, metrics = (f"{tempfile.mkdtemp()}/{name}.csv" for name in ("ratios", "metrics"))
        >>> write_tables(swarm, ratios, metrics, layout="regmix")
        >>> print(open(ratios).read())
        index,web,code
        1,0.75,0.25
        2,0.5,0.5
    """
    with requires("experiments", "mixjax.design.write_tables"):
        import pandas as pd

    check_choice("layout", layout, ("olmix", "regmix"))
    num = len(swarm.mixtures)
    names = _run_names(runs, num)
    head = {"index": np.arange(1, num + 1)}
    if layout == "olmix":
        head = {"run": names, "name": names, "index": np.arange(num)}
    for path, array, columns in ((ratios, swarm.mixtures, swarm.domains), (metrics, swarm.losses, swarm.metrics)):
        frame = pd.concat([pd.DataFrame(head), pd.DataFrame(array, columns=list(columns))], axis=1)
        _write(frame, local_path("path", path))


def write_mixtures(
    mixtures: Any, path: str | os.PathLike, domains: Sequence[str], *, runs: Sequence[str] | None = None
) -> None:
    """Writes mixtures to a file, CSV or Parquet, which :func:`read_tables` reads beside the losses of their runs.

    Args:
        mixtures: ``[n, D]``.
        path: the file.
        domains: ``[D]``, the names of the domains.
        runs: ``[n]``, the names of the runs; by default "run_0" and so on.

    Raises:
        TypeError: entries that are no numbers.
        ValueError: rows that are no mixtures, or another number of names.
        OSError: the file cannot be written.
        ImportError: pandas is missing (extra ``experiments``).

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/ratios.csv"
        >>> write_mixtures([[0.75, 0.25]], path, ["web", "code"])
        >>> print(open(path).read())
        run,name,index,web,code
        run_0,run_0,0,0.75,0.25
    """
    with requires("experiments", "mixjax.design.write_mixtures"):
        import pandas as pd

    shares = as_mixtures("mixtures", mixtures, list(domains))
    names = _run_names(runs, len(shares))
    head = pd.DataFrame({"run": names, "name": names, "index": np.arange(len(shares))})
    frame = pd.concat([head, pd.DataFrame(shares, columns=list(domains))], axis=1)
    _write(frame, local_path("path", path))


def _write(frame, path):
    if not _is_parquet(path):
        write_whole(path, frame.to_csv(index=False))
        return
    with requires("parquet", "Parquet"):
        import pyarrow  # noqa: F401
    write_whole(path, frame.to_parquet(index=False))


def _run_names(runs, num):
    names = [f"run_{i}" for i in range(num)] if runs is None else list(runs)
    if len(names) != num:
        raise ValueError(f"runs must have a name for each of {num} runs, got {len(names)}.")
    return names


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

    if _is_parquet(path):
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


def _is_parquet(path):
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
