"""Draws accuracy, validation loss and weights on MNIST's domains against T, with baselines as levels."""

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.shared.figures import line, points
from experiments.shared.statistics import error_bars

BASELINES = {
    "uniform": ("uniform weights", {"color": "0.35", "ls": "-"}),
    "proportional": ("proportional weights", {"color": "C4", "ls": "--"}),
    "doge": ("DoGE", {"color": "C2", "ls": "-."}),
    "doremi": ("DoReMi", {"color": "C5", "ls": ":"}),
    "group_dro": ("group DRO", {"color": "C6", "ls": "--"}),
    "exp3": ("EXP3", {"color": "C8", "ls": (0, (1, 3))}),
}
DOMAINS = {"noisy": "C3", "skewed": "C0", "swapped": "C1", "clean": "C2"}


def of(data, metric: str, method: str, budget: str = "updates"):
    """Returns a method's metric, one value for each seed (and each domain, where the metric has domains)."""
    return data[metric].sel({"method": method, "budget": budget}, drop=True)


def horizons(data, kind: str = "T=") -> dict[int, str]:
    """Returns T -> method, for the methods of one kind."""
    return {int(name.removeprefix(kind)): name for name in data["method"].values if name.startswith(kind)}


def steps_a_round(data, method: str) -> int:
    """Returns the method's T."""
    return int(data["T"].sel({"method": method}).isel(seed=0))


def best_of_grid(data, metric: str):
    """Returns a metric of the fixed weights with each seed's lowest validation loss, one value for each seed."""
    return data[f"grid_{metric}"].isel(point=data["grid_validation_loss"].argmin("point"))


def shares(data):
    """Returns the grid's points, ``[point, domain]``."""
    return np.array([[float(share) for share in point.split()] for point in data["point"].values])


def figure(results):
    """Draws a row for each run: accuracy at equal updates and at equal compute, validation loss, weights."""
    drawn, axes = plt.subplots(
        len(results), 4, figsize=(17, 3.3 * len(results) + 1.6), squeeze=False, layout="constrained"
    )
    for row, (name, data) in zip(axes, results.items(), strict=True):
        steps = int(data["steps"].max())
        against_horizon(row[0], data, "accuracy", "updates")
        row[0].set(ylabel="test accuracy (%)", title=f"{name}: {steps} updates")
        against_horizon(row[1], data, "accuracy", "compute")
        row[1].set(ylabel="test accuracy (%)", title="in the time of as many plain updates")
        against_horizon(row[2], data, "validation_loss", "updates")
        row[2].set(ylabel="validation loss (nats)", title=f"{steps} updates")
        weights(row[3], data)
        for axis in row:
            axis.set(xscale="log", xlabel="T (steps from one update of the weights to the next)")
            axis.set_xticks(list(horizons(data)), list(horizons(data)), minor=False)
            axis.minorticks_off()
            axis.grid(alpha=0.3, lw=0.5)
    entries = {}
    for axis in axes[:, [0, 3]].flat:
        entries |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawn.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=7, fontsize=9)
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        "MNIST in domains without and with a clean one: weights learned on a clean validation set, every T steps\n"
        f"mean over {seeds} paired seeds; bars and bands: ±2 standard errors"
    )
    return drawn


def against_horizon(axis, data, metric, budget):
    """Draws a metric of the hypergradient methods over T, and the baselines as levels."""
    for method, (label, style) in BASELINES.items():
        _level(axis, of(data, metric, method, budget), label=label, **style)
    if "point" in data.dims:
        _level(axis, best_of_grid(data, metric), label="best fixed weights of a grid", color="k", ls=(0, (5, 1)))
    for kind, label, color, fmt in (
        ("T=", "T-step hypergradient", "C0", "o-"),
        ("alignment T=", "first-order hypergradient (alignment)", "C1", "s--"),
    ):
        for number, (T, name) in enumerate(horizons(data, kind).items()):
            points(axis, [T], of(data, metric, name, budget), fmt=fmt[0], color=color, zorder=3, ms=5)
            axis.containers[-1].set_label("_nolegend_" if number else label)
        found = horizons(data, kind)
        means = [of(data, metric, name, budget).mean() for name in found.values()]
        axis.plot(list(found), means, fmt[1:], color=color, lw=1.4)
    auto = steps_a_round(data, "auto")
    points(
        axis, [auto], of(data, metric, "auto", budget), fmt="*", color="k", ms=11, zorder=4, label="T from horizon()"
    )


def _level(axis, values, **style):
    mean, error = map(float, error_bars(values))
    axis.axhline(mean, lw=1.4, **style)
    axis.axhspan(mean - error, mean + error, color=style["color"], alpha=0.1, lw=0)


def weights(axis, data):
    """Draws last and mean weights over T, and the grid's best weights as crosses at the right."""
    found = horizons(data)
    for domain in data["domain"].values:
        for metric, ls, label in (("weights", "-", domain), ("mean_weights", ":", f"{domain}, mean over the run")):
            values = xarray.concat([of(data, metric, name).sel(domain=domain) for name in found.values()], "horizon")
            style = {"ls": ls, "marker": "o" if ls == "-" else None, "ms": 4, "lw": 1.5}
            line(axis, list(found), values, alpha=0.15, color=DOMAINS[domain], label=label, **style)
    if "point" in data.dims:
        chosen = shares(data)[data["grid_validation_loss"].argmin("point").values].mean(axis=0)
        for domain, share in zip(data["domain"].values, chosen, strict=True):
            label = "best of the grid" if domain == data["domain"].values[0] else None
            axis.plot([2.5 * max(found)], [share], "x", color=DOMAINS[domain], ms=8, mew=2, label=label)
    axis.set(ylabel="loss weight (share)", ylim=(-0.03, 1.03), title="last and mean weights")
