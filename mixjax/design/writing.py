"""Writes tables of mixtures and losses, CSV or Parquet, as Olmix and RegMix keep them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mixjax.checks import check_choice, requires
from mixjax.design.runs import Swarm, as_mixtures
from mixjax.design.tables import is_parquet
from mixjax.files import local_path, write_whole

__all__ = ["write_mixtures", "write_tables"]


def write_tables(
    swarm: Swarm,
    ratios: str | os.PathLike,
    metrics: str | os.PathLike,
    *,
    layout: Literal["olmix", "regmix"] = "olmix",
    runs: Sequence[str] | None = None,
) -> None:
    """Writes the mixtures and the losses of a swarm to two files, CSV or, if their names end so, Parquet.

    Where runs differ in budget, the losses get a column ``budget``, as :func:`mixjax.design.read_tables` reads it.

    Args:
        swarm: what to write.
        ratios: the file of the mixtures.
        metrics: the file of the losses.
        layout: ``"olmix"`` writes the columns run, name and index, ``"regmix"`` an index from 1.
        runs: names of the runs; by default "run_0" and so on. Tables of RegMix have none.

    Raises:
        ValueError: another layout, another number of names, or a metric named "budget" beside budgets.
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
    paid = {} if swarm.budgets is None else {"budget": swarm.budgets}
    if paid and "budget" in swarm.metrics:
        raise ValueError("metrics must not have the name 'budget', which is that of the column of budgets.")
    for path, first, array, columns in (
        (ratios, head, swarm.mixtures, swarm.domains),
        (metrics, head | paid, swarm.losses, swarm.metrics),
    ):
        frame = pd.concat([pd.DataFrame(first), pd.DataFrame(array, columns=list(columns))], axis=1)
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
    if not is_parquet(path):
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
