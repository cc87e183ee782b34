"""Reads numbers off learning curves: their roughness, their correlation, and their values at equal training loss."""

import numpy as np
import scipy.stats
import xarray

__all__ = [
    "RECORDS",
    "at_level",
    "dips_and_spread",
    "end",
    "equal_loss",
    "last",
    "local",
    "rank_correlation",
    "rough",
    "roughness",
    "second_half",
    "steps_to_reach",
]

# "At the end" is the mean over this many last records.
RECORDS = 5


def last(values: xarray.DataArray, method: str) -> xarray.DataArray:
    """Returns a method's value at the last step, one for each seed."""
    return values.sel({"method": method}).isel(step=-1, drop=True)


def second_half(values: xarray.DataArray) -> xarray.DataArray:
    """Returns the records of the second half of training, where no curve rises steeply any more."""
    return values.isel(step=slice(values.sizes["step"] // 2, None))


def roughness(values: xarray.DataArray) -> xarray.DataArray:
    """Measures how much a curve jumps from one record to the next, about a local line.

    The roughness is ``std(x[t-1] - 2 x[t] + x[t+1]) / √6``. For independent noise on a line this is the standard
    deviation of the noise, whatever the slope of the line.

    Args:
        values: the curves, with any dims, among them ``step``.

    Returns:
        The roughness, with the dims of ``values`` but ``step``.
    """
    return values.diff("step", n=2).std("step") / np.sqrt(6.0)


def at_level(values: xarray.DataArray, losses: xarray.DataArray, level: xarray.DataArray) -> xarray.DataArray:
    """Returns a curve's value at the first step where the loss has come down to a level.

    Between two records both the curve and the loss are taken to be straight lines.

    Args:
        values: the curve, ``[seed, step]``.
        losses: the losses of the same runs, ``[seed, step]``.
        level: the level of each run, ``[seed]``.

    Returns:
        The values ``[seed]``. They are NaN where the loss never comes down to the level.
    """

    def one(values, losses, level):
        reached = np.flatnonzero(losses <= level)
        if reached.size == 0:
            return np.nan
        now = reached[0]
        if now == 0:
            return values[0]
        part = (losses[now - 1] - level) / (losses[now - 1] - losses[now])
        return values[now - 1] + part * (values[now] - values[now - 1])

    core = [["step"], ["step"], []]
    return xarray.apply_ufunc(one, values, losses, level, input_core_dims=core, vectorize=True)


def equal_loss(data: xarray.Dataset, a: str, b: str, metric: str = "rare_accuracy") -> tuple:
    """Returns a metric of two methods at the lowest training loss that both have reached.

    Args:
        data: a data set with ``train_loss`` and the metric, with dims ``seed``, ``method``, ``step``.
        a: the first method.
        b: the second method.
        metric: the name of the metric.

    Returns:
        The triple of the first method's metric, the second method's metric and that loss, each ``[seed]``.
    """
    first, second = (data[["train_loss", metric]].sel({"method": method}, drop=True) for method in (a, b))
    level = np.maximum(first["train_loss"].min("step"), second["train_loss"].min("step"))
    of_first, of_second = (at_level(run[metric], run["train_loss"], level) for run in (first, second))
    return of_first, of_second, level


def rank_correlation(a: xarray.DataArray, b: xarray.DataArray) -> xarray.DataArray:
    """Returns Spearman's rank correlation of two curves over ``step``.

    Args:
        a: the first curves, with any dims, among them ``step``.
        b: the second curves, with the same dims.

    Returns:
        The correlations, with the dims of the curves but ``step``. They are NaN where one of the two is constant.
    """
    core = {"input_core_dims": [["step"]], "output_core_dims": [["step"]]}
    ranks = [xarray.apply_ufunc(scipy.stats.rankdata, x, kwargs={"axis": -1}, **core) for x in (a, b)]
    return xarray.corr(*ranks, "step")


def end(data, metric: str, method: str):
    """Returns a method's mean over the last records, one value for each seed."""
    return data[metric].sel({"method": method}).isel(step=slice(-RECORDS, None)).mean("step")


def rough(data, metric: str, methods, log: bool = False):
    """Returns the mean roughness of the methods' curves, or of their logarithms, in the second half of training."""
    values = second_half(data[metric].sel({"method": list(methods)}))
    return roughness(np.log(values) if log else values).mean("method")


def steps_to_reach(data, metric: str, method: str, level):
    """Returns the first step at which a curve reaches the level, as a share of all steps, or 1 if it never does."""
    reached = data[metric].sel({"method": method}) >= level
    first = data.step.isel(step=reached.argmax("step")) / int(data.step[-1])
    return first.where(reached.any("step"), 1.0).drop_vars("step", errors="ignore")


def local(values):
    """Returns by how much each record is above the mean of its two neighbours."""
    middle = values.isel(step=slice(1, -1))
    return middle - 0.5 * (values.shift(step=1) + values.shift(step=-1)).isel(step=slice(1, -1))


def dips_and_spread(data, method: str):
    """Correlates, by rank, how far test accuracy dips with how far the losses' spread rises, in the second half."""
    half = second_half(data[["accuracy", "train_loss_std"]].sel({"method": method}))
    return rank_correlation(-local(half["accuracy"]), local(half["train_loss_std"]))
