"""Draws and judges the training of a language model on a live mix."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.figure import Figure

from experiments.live_mix.methods import METHODS
from experiments.shared.statistics import error_bars
from mixjax.runner.claims import Claim, paired

__all__ = ["NAMES", "by_method", "by_source", "claims", "figure", "unit_of", "worst"]

LABELS = {
    "loss": "test loss",
    "loss_weight": "loss weight",
    "sampling_weight": "sampling weight",
}
NAMES = {"static": "static"} | {name: method.title for name, method in METHODS.items()}
# From as many domains on, the largest loss of one is mostly the noise of its few test rows.
_MANY = 20


def by_method(results: Mapping[str, xarray.Dataset]) -> dict[str, xarray.Dataset]:
    """Returns the metrics of each method, dims ``seed``, ``step`` and ``domain``."""
    found = {}
    for name, data in results.items():
        if "method" not in data.dims:
            found[name] = data
            continue
        # A keyword of xarray's sel is called method too, so the name goes in a dictionary.
        found |= {method: data.sel({"method": method}) for method in data["method"].values.tolist()}
    return found


def by_source(data: xarray.Dataset) -> xarray.Dataset:
    """Joins the cells of a domain, such as "help/de" and "help/fr": losses by their mean, weights by their sum."""
    sources = data.domain.copy(data=[str(name).partition("/")[0] for name in data.domain.values])
    grouped = data.groupby(sources.rename("source"))
    joined = grouped.mean("domain").assign({name: grouped.sum("domain")[name] for name in LABELS if name != "loss"})
    # Grouping sorts the names, and colours follow the order that the domains have in every other chart.
    joined = joined.sel(source=list(dict.fromkeys(sources.values.tolist())))
    return joined.rename(source="domain")


def unit_of(results: Mapping[str, xarray.Dataset]) -> str:
    """Returns the unit of the losses, such as "nats per byte"."""
    return next(iter(results.values())).loss.attrs.get("units", "nats per token")


def worst(loss: xarray.DataArray) -> xarray.DataArray:
    """Returns the largest loss of a domain; of many domains, the mean of the tenth with the largest losses."""
    if loss.sizes["domain"] < _MANY:
        return loss.max("domain")
    ordered = loss.copy(data=np.sort(loss.values, axis=loss.dims.index("domain"))).drop_vars("domain", errors="ignore")
    return ordered.isel(domain=slice(-(loss.sizes["domain"] // 10), None)).mean("domain")


def figure(results: Mapping[str, xarray.Dataset]) -> Figure:
    """Draws a row for each method: test losses and both weights by domain, means over seeds.

    The losses of a moving mix are drawn as differences to the static mix's, seed by seed, since the curves themselves
    look alike.
    """
    methods = {name: by_source(data) for name, data in by_method(results).items()}
    unit = unit_of(results)
    drawn, axes = plt.subplots(
        len(methods), 3, figsize=(12.0, 2.8 * len(methods) + 0.8), squeeze=False, sharex=True, layout="constrained"
    )
    for row, (method, data) in zip(axes, methods.items(), strict=True):
        is_compared = method != "static" and "static" in methods
        for axis, (metric, label) in zip(row, LABELS.items(), strict=True):
            values = data[metric]
            if metric == "loss" and is_compared:
                values, label = values - methods["static"].loss, f"{label} - static"
                axis.axhline(0.0, color="0.6", lw=0.8)
            for number, domain in enumerate(data.domain.values):
                mean, error = error_bars(values.sel(domain=domain))
                # After ten domains the colours begin again, and lines are dashed.
                (line,) = axis.plot(data.step, mean, label=str(domain), ls="-" if number < 10 else "--")
                axis.fill_between(data.step, mean - error, mean + error, color=line.get_color(), alpha=0.2, lw=0)
            axis.set_ylabel(f"{label} ({unit if metric == 'loss' else 'share'})")
            axis.set_title(NAMES.get(method, method))
            if metric != "loss":
                axis.set_ylim(bottom=0.0)
    axes[0, -1].legend(fontsize=7, ncols=2)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    drawn.suptitle("A language model on a live mix: means over seeds, bands of two standard errors")
    return drawn


def claims(results: Mapping[str, xarray.Dataset]) -> list[Claim]:
    """Judges each moving mix against the static one: mean and worst-domain test loss after the last step."""
    methods = by_method(results)
    if "static" not in methods:
        return []
    unit = unit_of(results)
    last = {name: data.loss.isel(step=-1) for name, data in methods.items()}
    is_many = last["static"].sizes["domain"] >= _MANY
    summaries = {
        "mean": ("mean over domains of the test loss", lambda loss: loss.mean("domain")),
        "worst": (
            "mean test loss of the worst tenth of the domains" if is_many else "largest test loss of a domain",
            worst,
        ),
    }
    return [
        paired(
            f"{method}_{kind}",
            reduce(last[method]),
            "<",
            reduce(last["static"]),
            statement=f"The {words} of {NAMES.get(method, method)} is below the static mix's, in {unit}",
            source="ours; paper 000, section 5, names language models as its next use"
            if method in ("erma", "va", "erma_va")
            else "ours",
        )
        for method in methods
        if method != "static"
        for kind, (words, reduce) in summaries.items()
    ]
