"""Draws and judges the training of a language model on a live mix."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.figure import Figure

from mixjax.runner.claims import Claim, paired

__all__ = ["claims", "figure"]

LABELS = {
    "loss": "test loss (nats per token)",
    "loss_weight": "loss weight (share)",
    "sampling_weight": "sampling weight (share)",
}
NAMES = {"static": "static", "erma": "ERMA", "va": "VA", "erma_va": "ERMA + VA"}


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


def figure(results: Mapping[str, xarray.Dataset]) -> Figure:
    """Draws a row for each method: test losses and both weights by domain, means over seeds."""
    methods = by_method(results)
    drawn, axes = plt.subplots(
        len(methods), 3, figsize=(12.0, 2.8 * len(methods) + 0.8), squeeze=False, sharex=True, layout="constrained"
    )
    for row, (method, data) in zip(axes, methods.items(), strict=True):
        for axis, (metric, label) in zip(row, LABELS.items(), strict=True):
            for domain in data.domain.values:
                values = data[metric].sel(domain=domain)
                mean, error = values.mean("seed"), values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
                (line,) = axis.plot(data.step, mean, label=str(domain))
                axis.fill_between(
                    data.step, mean - 2 * error, mean + 2 * error, color=line.get_color(), alpha=0.2, lw=0
                )
            axis.set_ylabel(label)
            axis.set_title(NAMES.get(method, method))
            if metric != "loss":
                axis.set_ylim(bottom=0.0)
        row[-1].legend(fontsize=7, ncols=2)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    drawn.suptitle("A language model on a live mix: means over seeds, bands of two standard errors")
    return drawn


def claims(results: Mapping[str, xarray.Dataset]) -> list[Claim]:
    """Judges each moving mix against the static one: mean and worst-domain test loss after the last step."""
    methods = by_method(results)
    if "static" not in methods:
        return []
    last = {name: data.loss.isel(step=-1) for name, data in methods.items()}
    summaries = {"mean": lambda loss: loss.mean("domain"), "worst": lambda loss: loss.max("domain")}
    found = []
    for method in methods:
        if method == "static":
            continue
        for kind, reduce in summaries.items():
            words = "mean over domains of the test loss" if kind == "mean" else "largest test loss of a domain"
            name = NAMES.get(method, method)
            found.append(
                paired(
                    f"{method}_{kind}",
                    reduce(last[method]),
                    "<",
                    reduce(last["static"]),
                    statement=f"The {words} of {name} is below the static mix's, in nats per token",
                    source="paper 000, section 5: its promise for language models is ours to test",
                )
            )
    return found
