"""Lists the scores of single cases in a result of ``mixjax run``, as :mod:`mixjax.runner.sites` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixjax.checks import requires

with requires("experiments", "mixjax.runner.result_scores"):
    import pandas as pd
    import xarray

__all__ = ["result_scores"]


def result_scores(results: Mapping[str, xarray.Dataset]) -> pd.DataFrame:
    """Lists the scores of each case, site and method that a result holds.

    A case that several seeds have tested is one case, as far as the result tells which case it was. Where it does not,
    each seed has test cases of its own.

    Args:
        results: run name to data set, from :func:`mixjax.runner.results.read`. Each has one metric with the dimensions
            ``seed``, ``method`` and ``case``, whose coordinate of ``case`` names each case's site, such as ``dice`` of
            ``configs/hardness_sampling/segmentation.toml``. Its other dimensions make the label. The metric
            ``case_number``, with the dimensions ``seed`` and ``case``, tells which case of the data each one was.

    Returns:
        One row for each score: ``site``, ``case``, ``label``, ``method``, ``seed`` and ``score``. With several runs, a
        method has its run's name too.

    Raises:
        ValueError: a run without such a metric, or with several.

    Example:
        >>> dims, coords = ("seed", "method", "case"), {"seed": [0], "method": ["ERM"], "case": ["A", "B"]}
        >>> data = xarray.Dataset({"dice": (dims, [[[80.0, 60.0]]])}, coords=coords)
        >>> print(result_scores({"run": data})[["site", "case", "method", "score"]].to_string(index=False))
        site        case method  score
           A 0 of seed 0    ERM   80.0
           B 1 of seed 0    ERM   60.0
    """
    tables = []
    for run, data in results.items():
        scores = _scores_by_case(run, data)
        sites = scores["case"].to_numpy()
        # Numbers in place of the sites, of which several cases have the same.
        table: Any = scores.assign_coords(case=range(len(sites))).to_series().rename("score").reset_index()
        others = [str(dim) for dim in scores.dims if dim not in ("seed", "method", "case")]
        prefix = f"{run}, " if len(results) > 1 else ""
        tables.append(
            pd.DataFrame(
                {
                    "site": sites[table["case"]].astype(str),
                    "case": _names(data, table),
                    "label": [", ".join(map(str, row)) for row in table[others].itertuples(index=False)],
                    "method": prefix + table["method"].astype(str),
                    "seed": table["seed"],
                    "score": table["score"],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _names(data: xarray.Dataset, table: Any) -> list[str]:
    """Names the case of each row by its number in the data, or else by its place among the test cases of its seed."""
    if "case_number" not in data:
        return [f"{case} of seed {seed}" for case, seed in zip(table["case"], table["seed"], strict=True)]
    numbers = data["case_number"].transpose("seed", "case").to_numpy()
    return numbers[data.indexes["seed"].get_indexer(table["seed"]), table["case"]].astype(int).astype(str).tolist()


def _scores_by_case(run: str, data: xarray.Dataset) -> xarray.DataArray:
    wanted = {"seed", "method", "case"}
    found = [str(name) for name, values in data.data_vars.items() if wanted <= set(values.dims)]
    if "case" not in data.coords:
        found = []
    if len(found) != 1:
        raise ValueError(
            f"run {run!r} must have one metric with the dimensions seed, method and case, whose cases are named by "
            f"their sites, got {', '.join(found) or 'none'} of {', '.join(map(str, data.data_vars))}."
        )
    return data[found[0]]
