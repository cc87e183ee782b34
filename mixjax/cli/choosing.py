"""Chooses the best setting of each label that is compared, on other seeds than those that judge."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mixjax.cli.terminal import Mistake
from mixjax.runner.frames import column_names
from mixjax.runner.texts import counted

__all__ = ["Chosen", "at_best_settings", "setting_columns"]


class Chosen(NamedTuple):
    """Holds the values to compare, and how they were chosen.

    Attributes:
        frame: the values of the judging seeds, each label at its own setting; without the settings' columns.
        head: says by what and on which seeds the settings were chosen.
        settings: a line for each label, such as "erma: gamma1 = 0.1".
    """

    frame: pd.DataFrame
    head: str
    settings: list[str]


def setting_columns(arrays: Sequence[xr.DataArray], along: str, selected: Sequence[str]) -> list[str]:
    """Names the columns whose values are settings: swept axes and columns of points that are not compared or selected.

    Args:
        arrays: the metric, from every run.
        along: the dimension that is compared.
        selected: dimensions that ``--select`` has taken labels of.

    Returns:
        The names, in order.
    """
    found: dict[str, None] = {}
    for values in arrays:
        dims = [str(dim) for dim in values.dims]
        # "result" and "run" come first, then what is swept, then the seed.
        for dim in dims[2 : dims.index("seed")]:
            if dim != along:
                found |= dict.fromkeys(column_names(values, dim) or [dim])
    return [name for name in found if name not in (along, *selected)]


def at_best_settings(
    frame: pd.DataFrame, metric: str, judges: pd.DataFrame, by: str, *, along: str, settings: Sequence[str], better: str
) -> Chosen:
    """Takes each label at the setting with the best mean over the first half of the seeds, in the other half.

    A setting is never judged on the seeds that chose it: the best of many means is too good by chance there. A mean
    with a run that is not finite is the worst of all.

    Args:
        frame: one row for each value of the metric that is compared.
        metric: its column.
        judges: one row for each value of the metric that chooses; the same columns.
        by: its column.
        along: the column of the labels that are compared.
        settings: the columns that make a setting.
        better: "lower" or "higher", for the metric that chooses too.

    Returns:
        The values to compare, and what was chosen.

    Raises:
        Mistake: nothing to choose from, fewer than four seeds, or a label without seeds to choose or to judge on.
    """
    settings = [name for name in settings if name in frame.columns and name in judges.columns]
    if not settings:
        raise Mistake(f"--best {by}: there is nothing to choose, only {along} varies")
    seeds = np.unique(frame["seed"])
    if len(seeds) < 4:
        raise Mistake(f"--best {by}: needs four seeds, two to choose and two to judge, got {len(seeds)}")
    choosing, judging = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
    # What else makes rows: each result, run and label of the metric has its own best setting.
    rows = [name for name in frame.columns if name not in (*settings, along, "seed", metric) and name in judges.columns]
    scores = judges[by].to_numpy(np.float64) * (1 if better == "lower" else -1)
    scored = judges[[*rows, along, *settings]].assign(score=np.where(np.isfinite(scores), scores, np.inf))
    first = scored.loc[np.isin(judges["seed"], choosing)]
    means = first.groupby([*rows, along, *settings], sort=False, dropna=False, as_index=False).mean()
    best = means.loc[means.groupby([*rows, along], sort=False, dropna=False)["score"].idxmin()]
    rest = frame.loc[np.isin(frame["seed"], judging)]
    kept = rest.merge(best.drop(columns="score"), on=[*rows, along, *settings])
    if kept.empty:
        raise Mistake(f"--best {by}: has no value at the settings that are compared")
    without = [label for label in frame[along].unique() if label not in set(kept[along])]
    if without:
        raise Mistake(
            f"--best {by}: {along} {without[0]} has no seed that chooses, of {_range(choosing)}, or none that judges, "
            f"of {_range(judging)}"
        )
    several = [name for name in rows if best[name].nunique() > 1]
    lines = [_line(row, [along, *several], settings) for row in best.to_dict("records")]
    head = f"each {along} at its best setting by {by}, chosen on {_range(choosing)}, judged on {_range(judging)}"
    return Chosen(kept.drop(columns=settings), head, lines)


def _line(row: dict[str, Any], names: Sequence[str], settings: Sequence[str]) -> str:
    chosen = ", ".join(f"{name} = {row[name]}" for name in settings if row[name] != "")
    label = ", ".join(str(row[name]) for name in names)
    return f"{label}: {chosen or 'its only setting'}" + (" (diverged)" if not np.isfinite(row["score"]) else "")


def _range(seeds: np.ndarray) -> str:
    shown = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    return f"{counted(len(seeds), 'seed')} ({shown})"
