"""Computes means over seeds with their errors, for the figures and the notes of every paper."""

from typing import Any

import numpy as np
import xarray

__all__ = ["average", "error_bars", "final", "mean_stderr", "share_error_bars"]


def mean_stderr(values: Any) -> tuple[Any, Any]:
    """Returns the mean over the seeds and its standard error, ``std(ddof=1) / √n``.

    Numbers that are not finite are not left out here, so that a diverged seed is seen in a note. The claims leave such
    seeds out and name them, by :func:`mixjax.statistics.mean_stderr`.

    Args:
        values: a ``DataArray`` with a dimension ``seed`` and any others, or numbers, one a seed.

    Returns:
        ``(mean, standard error)``, with the other dimensions; the error of one seed is NaN.

    Example:
        >>> mean, stderr = mean_stderr([1.0, 2.0, 3.0])
        >>> float(mean), round(float(stderr), 4)
        (2.0, 0.5774)
    """
    if isinstance(values, xarray.DataArray):
        mean, n = values.mean("seed"), values.sizes["seed"]
        # One seed has no spread: NumPy would warn of dividing by 0.
        return mean, values.std("seed", ddof=1) / np.sqrt(n) if n > 1 else xarray.full_like(mean, np.nan, float)
    values = np.asarray(values, np.float64)
    return values.mean(), values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.float64(np.nan)


def final(data: xarray.Dataset, metric: str, method: str) -> xarray.DataArray:
    """Returns a method's metric at the end of training, one value a seed."""
    return data[metric].sel({"method": method}).isel(step=-1)


def average(data: xarray.Dataset, metric: str, method: str) -> xarray.DataArray:
    """Returns the mean of a method's metric over training, one value a seed."""
    return data[metric].sel({"method": method}).mean("step")


def error_bars(values: Any) -> tuple[Any, Any]:
    """Returns the mean over the seeds and the length of its error bar to each side, two standard errors.

    Args:
        values: as in :func:`mean_stderr`.

    Returns:
        ``(mean, 2 standard errors)``.
    """
    mean, stderr = mean_stderr(values)
    return mean, 2 * stderr


def share_error_bars(holds: xarray.DataArray) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Returns the share of the seeds for which something holds, and the length of its error bar to each side.

    The error is a binomial's: the bar is ``2 √(p (1 - p) / n)`` for the share ``p`` of ``n`` seeds.

    Args:
        holds: 0 or 1, with a dimension ``seed`` and any others.

    Returns:
        ``(share, 2 standard errors)``, with the other dimensions.
    """
    share = holds.mean("seed")
    return share, 2 * np.sqrt(share * (1 - share) / holds.sizes["seed"])
