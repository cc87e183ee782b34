"""Checks the losses of named mixtures over paired seeds, whether they come as arrays, as data frames or from a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import check_integer
from mixjax.design.tables import read_table
from mixjax.files import local_path
from mixjax.sweeps.arrays import as_computable

__all__ = ["Losses", "as_losses", "as_seeds", "read_losses"]


class Losses(NamedTuple):
    """Holds the losses of some mixtures, all trained with the same seeds.

    Attributes:
        names: the names of the C mixtures.
        seeds: the S seeds, integers.
        metrics: the names of the M metrics.
        values: ``[C, S, M]``; NaN or infinite where a run diverged.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    values: np.ndarray


def as_losses(losses: Any, seeds: Sequence[int] | None = None, metrics: Sequence[str] | None = None) -> Losses:
    """Checks the losses of named mixtures.

    Args:
        losses: name -> ``[S, M]``, or ``[S]`` of a single metric; or a data frame with a row for each run and columns
            "mixture", "seed" and the metrics.
        seeds: ``[S]``, the seeds of the arrays; by default 0 and so on. A data frame has them.
        metrics: ``[M]``, the names of the metrics; by default "loss_0" and so on, or a data frame's columns.

    Returns:
        The losses.

    Raises:
        TypeError: losses that are neither, or entries that are no numbers.
        ValueError: fewer than two mixtures, arrays of different shapes, another number of seeds or names, a seed that
            stands twice or that some mixture lacks.
    """
    if isinstance(losses, Losses):
        return losses
    if hasattr(losses, "columns"):
        return _of_frame(losses, metrics)
    if not isinstance(losses, Mapping):
        raise TypeError(f"losses must be a mapping of names to arrays or a data frame, got {type(losses).__name__}.")
    arrays = {}
    for name, given in losses.items():
        try:
            array = as_computable(np.asarray(given))
            # Integers become floats; float32 stays, since its rounding is part of the test.
            array = array if array.dtype.kind == "f" else array.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"losses of {name!r} must be numbers, got {type(given).__name__}.") from None
        if array.ndim not in (1, 2) or 0 in array.shape:
            raise ValueError(f"losses of {name!r} must be [seeds] or [seeds, metrics], got shape {array.shape}.")
        arrays[str(name)] = array.reshape(len(array), -1)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1:
        first, *_, last = sorted(arrays, key=lambda name: arrays[name].shape)
        raise ValueError(
            f"losses must have one shape, got {arrays[first].shape} of {first!r} and {arrays[last].shape} of {last!r}."
        )
    num_seeds, num_metrics = shapes.pop() if shapes else (0, 0)
    return _checked(
        Losses(
            names=tuple(arrays),
            seeds=as_seeds("seeds", range(num_seeds) if seeds is None else seeds),
            metrics=tuple([f"loss_{m}" for m in range(num_metrics)] if metrics is None else map(str, metrics)),
            values=np.stack(list(arrays.values())) if arrays else np.empty((0, 0, 0)),
        )
    )


def as_seeds(name: str, seeds: Iterable[int]) -> tuple[int, ...]:
    """Checks seeds, which a cast to integers would change if they were fractions.

    Args:
        name: the argument as the error calls it.
        seeds: integers of at least 0.

    Returns:
        The seeds.

    Raises:
        ValueError: other numbers.
    """
    found = list(seeds)
    for seed in found:
        check_integer(name, seed, 0)
    return tuple(map(int, found))


def read_losses(path: str | os.PathLike) -> Losses:
    """Reads the losses of named mixtures from a CSV file.

    The file has a row for each run, with columns ``mixture`` and ``seed``; all other columns are metrics. Every mixture
    has a row for every seed. A run that diverged has ``nan`` or ``inf``; an empty cell is an error.

    Args:
        path: the file.

    Returns:
        The losses, which :func:`mixjax.design.validate` judges.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no table, a column that is missing, a cell that is no number, a run that is missing or stands twice;
            the error names the line.
        ImportError: pandas is missing (extra ``experiments``).

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "losses.csv"
        >>> _ = path.write_text("mixture,seed,web\\nproposal,7,1.0\\nuniform,7,2.0\\n")
        >>> read_losses(path).values.tolist()
        [[[1.0]], [[2.0]]]
    """
    table = read_table(local_path("path", path))
    for column in ("mixture", "seed"):
        if column not in table.columns:
            raise ValueError(f"{table.path}: the column {column!r} is missing.")
    metrics = tuple(column for column in table.columns if column not in ("mixture", "seed"))
    if not metrics:
        raise ValueError(f"{table.path}: has no column of losses besides 'mixture' and 'seed'.")
    rows = range(len(table.frame))
    for i in rows:
        for column in ("mixture", "seed", *metrics):
            if not table.frame[column].iloc[i].strip():
                raise ValueError(f"{table.row(i)}: {column!r} is missing; a run that diverged has nan.")
    return _of_rows(
        table.frame["mixture"].str.strip().tolist(),
        [table.number(i, "seed") for i in rows],
        metrics,
        np.array([[table.number(i, metric) for metric in metrics] for i in rows]),
        table.row,
    )


def _of_frame(frame, metrics):
    for column in ("mixture", "seed"):
        if column not in frame.columns:
            raise ValueError(f"losses must have a column {column!r}, got {', '.join(map(str, frame.columns))}.")
    columns = [name for name in frame.columns if name not in ("mixture", "seed")] if metrics is None else list(metrics)
    try:
        values = frame[columns].to_numpy(np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"losses must be numbers in the columns {', '.join(map(str, columns))}.") from None
    except KeyError as error:
        raise ValueError(f"metrics must be columns of the losses: {error.args[0]}") from None
    return _of_rows(
        list(map(str, frame["mixture"])),
        frame["seed"].tolist(),
        tuple(map(str, columns)),
        values,
        lambda i: f"losses, row {i}",
    )


def _of_rows(
    names: Sequence[str], seeds: Sequence[float], metrics: tuple[str, ...], rows: np.ndarray, row: Callable[[int], str]
) -> Losses:
    """Sorts rows by mixture and seed; both keep the order in which they first appear."""
    places: dict[tuple[str, float], int] = {}
    for i, run in enumerate(zip(names, seeds, strict=True)):
        if run[1] != int(run[1] if np.isfinite(run[1]) else 0):
            raise ValueError(f"{row(i)}: 'seed' must be an integer, got {run[1]}.")
        if run in places:
            raise ValueError(f"{row(i)}: {run[0]!r} has a run of the seed {int(run[1])} already, {row(places[run])}.")
        places[run] = i
    every_name, every_seed = tuple(dict.fromkeys(names)), tuple(dict.fromkeys(map(int, seeds)))
    for name in every_name:
        for seed in every_seed:
            if (name, seed) not in places:
                raise ValueError(f"{name!r} has no run of the seed {seed}; all mixtures need the same seeds.")
    order = [places[name, seed] for name in every_name for seed in every_seed]
    values = rows[order].reshape(len(every_name), len(every_seed), len(metrics))
    return _checked(Losses(every_name, every_seed, metrics, values))


def _checked(losses: Losses) -> Losses:
    num, num_seeds, num_metrics = losses.values.shape
    if num < 2:
        raise ValueError(f"losses must be those of two mixtures or more, got {num}.")
    for what, names, size in (("seeds", losses.seeds, num_seeds), ("metrics", losses.metrics, num_metrics)):
        if len(names) != size:
            raise ValueError(f"{what} must be {size}, one for each loss of a mixture, got {len(names)}.")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ValueError(f"{what} must differ, got {twice!r} twice.")
    return losses
