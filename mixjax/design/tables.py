"""Reads and writes tables of mixtures and losses, as Olmix and RegMix keep them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mixjax.checks import check_choice, requires
from mixjax.design.runs import Swarm, as_swarm
from mixjax.files import local_path, write_whole

__all__ = ["read_tables", "write_tables"]

# Columns that say which run a row is, the most telling first. All of them are no domains and no metrics.
_KEYS = ("run", "run_id", "index", "name")


class _Table(NamedTuple):
    """Holds a file's columns, the runs' names if it has them, and the line on which each row stands."""

    path: Path
    frame: Any
    columns: tuple[str, ...]
    lines: np.ndarray

    def row(self, i: int, key: str | None) -> str:
        """Names a row as errors call it."""
        run = f" (run {self.frame[key].iloc[i]})" if key else ""
        return f"{self.path}, line {self.lines[i]}{run}"


def read_tables(ratios: str | os.PathLike, metrics: str | os.PathLike) -> Swarm:
    """Reads the mixtures and the losses of a swarm from two CSV files.

    Rows belong together by the first of the columns "run", "run_id", "index" and "name" that both files have, and else
    by their order. These columns and those without a name are left out; all others are domains, or metrics.

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

    Returns:
        The swarm, in the order of the mixtures.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no table, a run that only one file has or that stands twice, a column that stands twice, a cell that
            is no number, and what :func:`mixjax.design.as_swarm` refuses; the error names the line or the column.
        ImportError: pandas is missing (extra ``experiments``).

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
    shares, losses = _read(local_path("ratios", ratios)), _read(local_path("metrics", metrics))
    key = next((name for name in _KEYS if name in shares.frame and name in losses.frame), None)
    if key is None:
        if len(shares.frame) != len(losses.frame):
            raise ValueError(
                f"{shares.path} and {losses.path} share no column {' or '.join(map(repr, _KEYS))} and have "
                f"{len(shares.frame)} and {len(losses.frame)} rows; they cannot be matched."
            )
        order = np.arange(len(shares.frame))
    else:
        order = _matched(shares, losses, key)
    values = _numbers(losses, key)[order]
    return as_swarm(
        _numbers(shares, key),
        values,
        domains=shares.columns,
        metrics=losses.columns,
        mixture_row=lambda i: shares.row(i, key),
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
    """Writes the mixtures and the losses of a swarm to two CSV files.

    Args:
        swarm: what to write.
        ratios: the file of the mixtures.
        metrics: the file of the losses.
        layout: ``"olmix"`` writes the columns run, name and index, ``"regmix"`` an index from 1.
        runs: names of the runs; by default "run_0" and so on. Tables of RegMix have none.

    Raises:
        ValueError: another layout, or another number of names.
        OSError: a file that cannot be written.
        ImportError: pandas is missing (extra ``experiments``).

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
    names = [f"run_{i}" for i in range(num)] if runs is None else list(runs)
    if len(names) != num:
        raise ValueError(f"runs must have a name for each of {num} runs, got {len(names)}.")
    head = {"index": np.arange(1, num + 1)}
    if layout == "olmix":
        head = {"run": names, "name": names, "index": np.arange(num)}
    for path, array, columns in ((ratios, swarm.mixtures, swarm.domains), (metrics, swarm.losses, swarm.metrics)):
        frame = pd.concat([pd.DataFrame(head), pd.DataFrame(array, columns=list(columns))], axis=1)
        write_whole(local_path("path", path), frame.to_csv(index=False))


def _read(path: Path) -> _Table:
    with requires("experiments", "mixjax.design.read_tables"):
        import pandas as pd

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
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: must have {len(header)} cells like the header, got {len(row)}.")
    frame = pd.DataFrame([row for _, row in rows[1:]], columns=header, dtype=str)
    # The first column of a frame that pandas has written has no name.
    columns = tuple(name for name in header if name and not name.startswith("Unnamed:") and name not in _KEYS)
    if not columns:
        raise ValueError(f"{path}: has no column besides {', '.join(filter(None, header)) or 'one without a name'}.")
    return _Table(path, frame, columns, np.array([line for line, _ in rows[1:]]))


def _matched(shares: _Table, losses: _Table, key: str) -> np.ndarray:
    """Returns the row of the losses for each row of the mixtures."""
    places = []
    for table in (shares, losses):
        found: dict[str, int] = {}
        for i, run in enumerate(table.frame[key]):
            if run in found:
                first = table.lines[found[run]]
                raise ValueError(f"{table.path}, line {table.lines[i]}: the {key} {run!r} stands on line {first} too.")
            found[run] = i
        places.append(found)
    for table, other, mine, theirs in ((shares, losses, *places), (losses, shares, *places[::-1])):
        for run, i in mine.items():
            if run not in theirs:
                raise ValueError(f"{table.path}, line {table.lines[i]}: {other.path} has no row of the {key} {run!r}.")
    return np.array([places[1][run] for run in places[0]])


def _numbers(table: _Table, key: str | None) -> np.ndarray:
    found = np.empty((len(table.frame), len(table.columns)))
    for j, column in enumerate(table.columns):
        for i, text in enumerate(table.frame[column]):
            try:
                found[i, j] = float(text) if text.strip() else np.nan
            except ValueError:
                raise ValueError(f"{table.row(i, key)}: {column!r} must be a number, got {text!r}.") from None
    return found
