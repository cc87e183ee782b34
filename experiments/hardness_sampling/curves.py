"""What is read off learning curves: how rough they are, and one curve at the level that another has reached."""

import numpy as np
import scipy.stats
import xarray


def last(values: xarray.DataArray, method: str) -> xarray.DataArray:
    """A method's value at the last step, one a seed."""
    return values.sel({"method": method}).isel(step=-1, drop=True)


def second_half(values: xarray.DataArray) -> xarray.DataArray:
    """The records of the second half of training, where no curve rises steeply any more."""
    return values.isel(step=slice(values.sizes["step"] // 2, None))


def roughness(values: xarray.DataArray) -> xarray.DataArray:
    """Standard deviation from one record to the next about a local line, ``std(x[t-1] - 2 x[t] + x[t+1]) / √6``.

    For independent noise on a line this is the noise's standard deviation, whatever the line's slope.

    Args:
        values: any dims, among them ``step``.

    Returns:
        The values without ``step``.
    """
    return values.diff("step", n=2).std("step") / np.sqrt(6.0)


def at_level(values: xarray.DataArray, losses: xarray.DataArray, level: xarray.DataArray) -> xarray.DataArray:
    """A curve at the first step where the loss has come down to a level, interpolated between two records.

    Args:
        values: ``[seed, step]``.
        losses: ``[seed, step]``, of the same run.
        level: ``[seed]``; NaN comes back where it is never reached.

    Returns:
        ``[seed]``.
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
    """Two methods' metric at the lowest training loss that both have reached.

    Args:
        data: with ``train_loss`` and the metric, dims ``seed``, ``method``, ``step``.
        a: a method.
        b: another.
        metric: what to read off.

    Returns:
        ``(metric of a, metric of b, that loss)``, ``[seed]`` each.
    """
    runs = [data[["train_loss", metric]].sel({"method": method}, drop=True) for method in (a, b)]
    level = np.maximum(*(run["train_loss"].min("step") for run in runs))
    return *(at_level(run[metric], run["train_loss"], level) for run in runs), level


def rank_correlation(a: xarray.DataArray, b: xarray.DataArray) -> xarray.DataArray:
    """Spearman's rank correlation over ``step``; NaN where one of the two is constant.

    Args:
        a: any dims, among them ``step``.
        b: the same.

    Returns:
        The dims without ``step``.
    """
    core = {"input_core_dims": [["step"]], "output_core_dims": [["step"]]}
    ranks = [xarray.apply_ufunc(scipy.stats.rankdata, x, kwargs={"axis": -1}, **core) for x in (a, b)]
    return xarray.corr(*ranks, "step")
