"""Compares runs over paired seeds: differences with their errors, t-tests with Holm's correction; finds diverged runs.

In Python, the table that ``mixjax compare`` prints is made by::

    accuracy = mixjax.runner.results.read("results/quickstart")["run"].accuracy  # [seed, method, step]
    values, at = mixjax.runner.frames.final_values(accuracy)  # [seed, method], at the last step
    frame = mixjax.runner.frames.long_frame(values, "accuracy")
    mixjax.runner.comparison.paired_table(frame, "accuracy", "method", baseline="vanilla", better="higher")
"""

import functools
import math
import operator
from typing import Any, Literal

import numpy as np

from mixjax.checks import requires
from mixjax.runner.frames import finite_values
from mixjax.statistics import MIN_SEEDS, holm, paired_difference

with requires("experiments", "mixjax.runner.comparison"):
    import pandas as pd
    import xarray as xr

__all__ = ["divergent_runs", "paired_table"]

_STATISTICS = (
    "value", "baseline", "difference", "stderr", "low", "high", "p_value", "p_holm", "verdict", "wins", "ties",
    "num_seeds", "left_out", "unpaired",
)  # fmt: skip
_LEVEL = 0.05  # of the corrected p-values


def paired_table(
    frame: pd.DataFrame, metric: str, along: str, *, better: Literal["lower", "higher"], baseline: Any = None
) -> pd.DataFrame:
    """Compares the labels of a column with a baseline, seed by seed.

    The statistics are those of the differences d_s = value_s - baseline_s over the n seeds s in which both values are
    finite. Where the difference is the same number in all seeds up to the rounding of the values, the standard error is
    0, and the test cannot be made: p is 1 if that number is 0, else NaN. With fewer than two seeds, standard error and
    p are NaN.

    Args:
        frame: one row for each value: columns ``metric``, "seed", ``along``, and any others. Values are compared only
            with values that agree in these others. :func:`mixjax.runner.frames.long_frame` makes it from an array.
        metric: the column of the values.
        along: the column of the labels that are compared.
        better: "lower" or "higher", the values that win.
        baseline: the label that the others are compared with; default the first.

    Returns:
        One row for each label but the baseline and each combination of the other columns, in order of appearance. The
        columns are the other columns and

        - ``value`` and ``baseline``: the two means over the n seeds;
        - ``difference``: the mean of the differences;
        - ``stderr``: their standard deviation (n - 1) / √n;
        - ``low`` and ``high``: the ends of Student's 95 % interval;
        - ``p_value``: of the two-sided paired t-test;
        - ``p_holm``: the same after :func:`holm` over the whole table;
        - ``verdict``: "better" or "worse" where ``p_holm`` is at most 5 %, or the difference is the same in all seeds.
          Else "undecided", and always so with fewer than three seeds or where half of the seeds are left out;
        - ``wins`` and ``ties``: the number of seeds in which the label is better than the baseline, or equal to it;
        - ``num_seeds``: n;
        - ``left_out``: the number of seeds in which the label's or the baseline's value is not finite;
        - ``unpaired``: the number of seeds that only the label has, or only the baseline.

    Raises:
        ValueError: a column is missing, or has the name of one of the result's columns; a row occurs twice; there is a
            single label; the baseline or ``better`` is unknown; or no label shares a seed with the baseline.

    Example:
        >>> losses = {"sgd": [3.0, 4.0, 5.0, 9.0], "erma": [2.0, 2.0, 4.0, float("nan")]}
        >>> frame = pd.DataFrame(losses).rename_axis("seed").reset_index().melt("seed", None, "method", "loss")
        >>> table = paired_table(frame, "loss", "method", better="lower")
        >>> table[["method", "difference", "stderr", "p_value", "num_seeds", "left_out"]].round(3)
          method  difference  stderr  p_value  num_seeds  left_out
        0   erma      -1.333   0.333    0.057          3         1
    """
    _check_columns(frame, metric, along)
    if better not in ("lower", "higher"):
        raise ValueError(f"better must be 'lower' or 'higher', got {better!r}")
    labels = list(frame[along].unique())
    baseline = labels[0] if baseline is None else baseline
    if baseline not in labels:
        raise ValueError(f"baseline must be a label of {along!r}, one of {labels}, got {baseline!r}")
    if len(labels) < 2:
        raise ValueError(f"{along!r} must have two labels or more to compare, got {labels}")
    others = [name for name in frame.columns if name not in (metric, along, "seed")]
    if frame.duplicated([*others, along, "seed"]).any():
        raise ValueError(f"frame must have one row for each of {[*others, along, 'seed']}, got several")

    rows = []
    for where, series in _series(frame, metric, along, others).items():
        # Without a baseline in this combination the row is still shown, with no seed that can be paired.
        reference = series.get(baseline, pd.Series(dtype=np.float64))
        for label, values in series.items():
            if label != baseline:
                names = dict(zip([*others, along], [*where, label], strict=True))
                rows.append(names | _statistics(values, reference, higher_is_better=better == "higher"))
    table = pd.DataFrame(rows)
    if not (table.num_seeds + table.left_out).any():
        raise ValueError(_why_unpaired(frame, along, baseline, others))
    # Correct over the whole table, since all its rows are tests of one family.
    table.insert(table.columns.tolist().index("p_value") + 1, "p_holm", holm(table.p_value))
    verdicts = [_verdict(row, better) for _, row in table.iterrows()]
    table.insert(table.columns.tolist().index("p_holm") + 1, "verdict", verdicts)
    return table


def _verdict(row: pd.Series, better: str) -> str:
    if row.num_seeds < MIN_SEEDS or row.left_out >= row.num_seeds:
        return "undecided"
    # Values near the largest float have no standard error.
    if not (math.isfinite(row.difference) and math.isfinite(row.stderr)):
        return "undecided"
    # NaN is no larger: without a spread there is no test, and a difference that is always the same is no noise.
    if row.p_holm > _LEVEL:
        return "undecided"
    return "better" if (row.difference > 0) == (better == "higher") else "worse"


def _why_unpaired(frame: pd.DataFrame, along: str, baseline: Any, others: list[str]) -> str:
    """Says why no label can be paired with the baseline: a column that they never agree in, or else the seeds."""
    is_baseline = frame[along] == baseline
    own, rest = frame.loc[is_baseline], frame.loc[~is_baseline]
    for name in others:
        ours, theirs = (list(dict.fromkeys(each[name])) for each in (own, rest))
        if not set(ours) & set(theirs):
            return (
                f"nothing can be paired: {name!r} is {_listed(ours)} for {baseline!r}, and {_listed(theirs)} for the "
                f"other labels of {along!r}"
            )
    within = f" within {', '.join(map(repr, others))}" if others else ""
    return f"no seed in common: no label of {along!r} has one that {baseline!r} has too{within}"


def _listed(values: Any) -> str:
    texts = [str(value) or "not there" for value in values]
    return ", ".join(texts if len(texts) <= 5 else [*texts[:5], "..."])


def _check_columns(frame: pd.DataFrame, metric: str, along: str) -> None:
    missing = [name for name in (metric, along, "seed") if name not in frame.columns]
    if missing:
        raise ValueError(f"frame must have columns {metric!r}, {along!r} and 'seed', got {list(frame.columns)}")
    taken = [name for name in frame.columns if name in _STATISTICS and name != metric]
    if taken:
        raise ValueError(f"frame must have no column named like one of the result, got {taken}; rename it")


def _series(frame: pd.DataFrame, metric: str, along: str, others: list[str]) -> dict[tuple, dict[Any, pd.Series]]:
    """Returns, for each combination of the other columns, label -> values by seed."""
    found: dict[tuple, dict[Any, pd.Series]] = {}
    # Labels in order of appearance; a row without a label in some column (NaN) is a group of its own.
    for names, rows in frame.groupby([*others, along], sort=False, dropna=False):
        # pandas gives a tuple, since it gets a list of columns; its annotations do not say so.
        *where, label = names if isinstance(names, tuple) else (names,)
        # In the type of the metric, which tells how far the values are rounded.
        values = pd.Series(rows[metric].to_numpy(), index=rows["seed"].to_numpy())
        found.setdefault(tuple(where), {})[label] = values
    return found


def _statistics(values: pd.Series, baseline: pd.Series, *, higher_is_better: bool) -> dict[str, Any]:
    """Returns the statistics of one row of the table, from two series indexed by seed."""
    # Pair by seed, not by position: the two series may have different seeds, or the same ones in another order.
    shared = values.index.intersection(baseline.index, sort=False)
    unpaired = len(values) + len(baseline) - 2 * len(shared)
    values, baseline = values.reindex(shared), baseline.reindex(shared)
    finite = np.isfinite(values.to_numpy()) & np.isfinite(baseline.to_numpy())
    values, baseline = values.iloc[finite], baseline.iloc[finite]
    found = paired_difference(values, baseline)
    values, baseline = values.astype(np.float64), baseline.astype(np.float64)
    difference = values - baseline
    return {
        "value": values.mean(),
        "baseline": baseline.mean(),
        "difference": found.mean,
        "stderr": found.stderr,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "wins": int((difference > 0).sum() if higher_is_better else (difference < 0).sum()),
        "ties": int((difference == 0).sum()),
        "num_seeds": found.num_seeds,
        "left_out": int((~finite).sum()),
        "unpaired": unpaired,
    }


def divergent_runs(dataset: xr.Dataset) -> xr.DataArray:
    """Tells which runs have a value that is not finite, anywhere in any of their float metrics.

    Args:
        dataset: metrics with dims (*axes, "seed", *their own), as :func:`mixjax.sweep` and
            :func:`mixjax.runner.results.read` give them.

    Returns:
        bool, with dims (*axes, "seed").

    Raises:
        ValueError: no metrics, or one without "seed".

    Example:
        >>> dataset = xr.Dataset({"loss": (("seed", "step"), [[1.0, 0.5], [1.0, float("nan")]])})
        >>> divergent_runs(dataset).values.tolist()
        [False, True]
    """
    without = [name for name, values in dataset.data_vars.items() if "seed" not in values.dims]
    if without or not dataset.data_vars:
        raise ValueError(f"dataset must have metrics with a dimension 'seed', got {without or 'no metrics'}")
    return functools.reduce(operator.or_, map(_has_non_finite, dataset.data_vars.values()))


def _has_non_finite(values: xr.DataArray) -> xr.DataArray:
    own = values.dims[values.dims.index("seed") + 1 :]
    all_finite = finite_values(values).all(own)
    return ~all_finite
