"""Comparing runs over paired seeds: differences with their errors, t-tests, Holm's correction, runs that diverged.

```python
import mixjax.runner.comparison
import mixjax.runner.frames
import mixjax.runner.results

accuracy = mixjax.runner.results.read("results/quickstart")["run"].accuracy  # [seed, method, step]
values, at = mixjax.runner.frames.final(accuracy)  # [seed, method], at the last step
frame = mixjax.runner.frames.to_frame(values, "accuracy")
mixjax.runner.comparison.paired_table(frame, "accuracy", "method", baseline="vanilla", better="higher")
```

`mixjax compare` does this from the command line.
"""

import functools
import operator
from typing import Any

import numpy as np

try:
    import pandas as pd
    import scipy.special
    import xarray as xr
except ImportError as exc:
    raise ImportError(f"mixjax.runner.comparison needs {exc.name}: pip install 'mixjax[experiments]'") from exc

from mixjax.runner.claims import mean_stderr

_STATISTICS = ("value", "baseline", "difference", "stderr", "low", "high", "p_value", "p_holm", "wins", "ties")
_STATISTICS += ("num_seeds", "left_out", "unpaired")

__all__ = ["divergent_runs", "holm", "mean_stderr", "mean_text", "paired_table"]


def holm(p_values: Any) -> np.ndarray:
    """Corrects p-values of several tests by Holm's step-down method, whatever their dependence.

    With the p-values in ascending order, p_(1) <= ... <= p_(m), the corrected ones are
    max over j <= i of min(1, (m - j + 1) p_(j)). Rejecting those at most α makes a false rejection among the m tests
    with a probability of at most α.

    Args:
        p_values: of any shape, in [0, 1]. A NaN is a test that could not be made: it stays and is not counted in m.

    Returns:
        The corrected p-values, float64, in the shape given.

    Raises:
        ValueError: a p-value is outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]

    References:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    p_values = np.asarray(p_values, np.float64)
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError(f"p_values must be in [0, 1], got {p_values.tolist()}")
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values.ravel()[tests])]
    steps = (len(order) - np.arange(len(order))) * p_values.ravel()[order]
    corrected = np.full(p_values.size, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.reshape(p_values.shape)


def paired_table(frame: pd.DataFrame, metric: str, along: str, *, better: str, baseline: Any = None) -> pd.DataFrame:
    """Compares the labels of a column with a baseline, seed by seed.

    For the differences d_s = value_s - baseline_s over the n seeds in which both are finite: `difference` is their
    mean, `stderr` their standard deviation (n - 1) / √n, `low` and `high` are the ends of Student's 95 % interval,
    `p_value` is that of the two-sided paired t-test, and `p_holm` the same after `holm` over the whole table. Where the
    difference is one number in all seeds, the standard error is 0, and p is 1 if that number is 0, else 0, the limit of
    the test. With fewer than two seeds, standard error and p are NaN.

    Args:
        frame: one row a value: columns `metric`, "seed", `along`, and any others, within which alone values are
            compared. `mixjax.runner.frames.to_frame` makes it from an array.
        metric: the column of the values.
        along: the column of the labels that are compared.
        better: "lower" or "higher", what a win is.
        baseline: a label; default the first.

    Returns:
        One row for each label but the baseline and each combination of the other columns, in order of appearance: those
        columns; `value` and `baseline`, the two means over the n seeds; `difference`, `stderr`, `low`, `high`,
        `p_value`, `p_holm`; `wins`, the seeds in which it is better, and `ties`; `num_seeds`, n; `left_out`, the seeds
        in which one of the two is not finite; `unpaired`, the seeds that only one of the two has.

    Raises:
        ValueError: a column is missing or named like one of the result, a row occurs twice, a single label, an unknown
            baseline or `better`, or no label shares a seed with the baseline.

    Example:
        >>> losses = {"sgd": [3.0, 4.0, 5.0, 9.0], "erma": [2.0, 2.0, 4.0, float("nan")]}
        >>> frame = pd.DataFrame(losses).rename_axis("seed").reset_index().melt("seed", None, "method", "loss")
        >>> table = paired_table(frame, "loss", "method", better="lower")
        >>> table[["method", "difference", "stderr", "p_value", "num_seeds", "left_out"]].round(3)
          method  difference  stderr  p_value  num_seeds  left_out
        0   erma      -1.333   0.333    0.057          3         1
    """
    missing = [name for name in (metric, along, "seed") if name not in frame.columns]
    if missing:
        raise ValueError(f"frame must have columns {metric!r}, {along!r} and 'seed', got {list(frame.columns)}")
    taken = [name for name in frame.columns if name in _STATISTICS and name != metric]
    if taken:
        raise ValueError(f"frame must have no column named like one of the result, got {taken}; rename it")
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
    groups: dict[tuple, dict[Any, pd.Series]] = {}  # labels of the other columns -> label along -> values over seeds
    for (*where, label), rows in frame.groupby([*others, along], sort=False, dropna=False):
        groups.setdefault(tuple(where), {})[label] = rows.set_index("seed")[metric].astype(np.float64)
    none, sign = pd.Series(dtype=np.float64), 1 if better == "higher" else -1
    table = pd.DataFrame(
        dict(zip([*others, along], [*where, label], strict=True)) | _compare(series, group.get(baseline, none), sign)
        for where, group in groups.items()
        for label, series in group.items()
        if label != baseline
    )
    if not (table.num_seeds + table.left_out).any():
        within = f" within {', '.join(map(repr, others))}" if others else ""
        raise ValueError(f"no seed in common: no label of {along!r} has one that {baseline!r} has too{within}")
    table.insert(table.columns.get_loc("p_value") + 1, "p_holm", holm(table.p_value))
    return table


def _compare(a: pd.Series, b: pd.Series, sign: int) -> dict[str, Any]:
    """A row's statistics, from two series over seeds."""
    shared = a.index.intersection(b.index, sort=False)
    unpaired = len(a) + len(b) - 2 * len(shared)
    a, b = a[shared], b[shared]
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    difference = a - b
    mean, stderr, n = mean_stderr(difference)
    half = stderr * scipy.special.stdtrit(n - 1, 0.975)
    p_value = float(mean == 0) if stderr == 0 else 2 * scipy.special.stdtr(n - 1, -abs(mean) / stderr)
    return {
        "value": a.mean(),
        "baseline": b.mean(),
        "difference": mean,
        "stderr": stderr,
        "low": mean - half,
        "high": mean + half,
        "p_value": p_value,
        "wins": int((sign * difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "num_seeds": n,
        "left_out": int((~finite).sum()),
        "unpaired": unpaired,
    }


def mean_text(mean: float, stderr: float) -> str:
    """A mean and its standard error as text, with as many decimals as two digits of the error have.

    Args:
        mean: NaN gives "-".
        stderr: NaN leaves it out.

    Returns:
        Such as "2.81 ± 0.18".

    Example:
        >>> mean_text(2.8094, 0.1795), mean_text(0.25, float("nan")), mean_text(3.2e-9, 1e-10)
        ('2.81 ± 0.18', '0.25', '3.2e-09 ± 1e-10')
    """
    if np.isnan(mean):
        return "-"
    if not stderr > 0:
        return f"{mean:.4g}" + (" ± 0" if stderr == 0 else "")
    decimals = max(1 - int(np.floor(np.log10(stderr))), 0)
    if decimals > 6 or abs(mean) >= 1e7:
        return f"{mean:.4g} ± {stderr:.2g}"
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def divergent_runs(dataset: xr.Dataset) -> xr.DataArray:
    """Which runs have a value that is not finite, anywhere in any of their float metrics.

    Args:
        dataset: metrics with dims (*axes, "seed", *their own), as `mixjax.sweep` and `results.read` give them.

    Returns:
        Bool, with dims (*axes, "seed").

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
    return functools.reduce(operator.or_, map(_not_finite, dataset.data_vars.values()))


def _not_finite(values: xr.DataArray) -> xr.DataArray:
    own = values.dims[values.dims.index("seed") + 1 :]
    if values.dtype.kind == "V":  # bfloat16
        values = values.astype(np.float32)
    finite = np.isfinite(values) if values.dtype.kind in "fc" else xr.ones_like(values, bool)
    return ~finite.all(own)
