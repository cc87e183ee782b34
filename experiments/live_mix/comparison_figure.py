"""Draws the comparison of mixing methods: mean against worst-domain loss, losses by domain, and weights over time."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.live_mix.comparison_pareto import COLOURS, colour_of, pareto
from experiments.live_mix.comparison_tables import (
    MEASURES,
    NAMES,
    REFERENCE,
    by_domain,
    compared,
    is_comparison,
    methods,
    moving,
)
from experiments.live_mix.methods import METHODS
from mixjax.runner import sweep_figure

__all__ = ["figure"]

# Weights that a method moves. Those that it holds fixed would be straight lines.
_KINDS = {"loss_weight": "loss weights", "sampling_weight": "sampling weights"}


def figure(results: dict[str, xarray.Dataset]) -> Figure:
    """Draws three rows: mean against worst domain at equal steps and time and the held-out domain; domains; weights.

    A sweep over settings gets the figure of all sweeps.
    """
    if not is_comparison(results):
        return sweep_figure(results)
    drawn = plt.figure(figsize=(12.0, 13.0), layout="constrained")
    top, middle, bottom = drawn.subfigures(3, 1, height_ratios=[4.6, 3.6, 4.2])
    table = compared(results, REFERENCE)
    left, centre, right = top.subplots(1, 3)
    pareto(left, table, "steps")
    pareto(centre, table, "time")
    _targets(right, table)
    _heat_map(middle.subplots(), results)
    _weights(bottom, results)
    seeds = int(table.num_seeds.max())
    drawn.suptitle(
        f"Mixing methods against the uniform mix: test loss in nats per token, differences over {seeds} paired seeds\n"
        "blue: fixed weights; orange: weights found by training; bars: two standard errors; grey: the Pareto front",
        fontsize=11,
    )
    return drawn


def _targets(axis: Axes, table: pd.DataFrame) -> None:
    """Draws the held-out domain: filled markers at equal steps, open ones at equal time where that is another run."""
    own = table[table.measure == "target"]
    order = own[own.cost == "steps"].sort_values("difference", ascending=False).method.tolist()
    for place, name in enumerate(order):
        colour = colour_of(name)
        for cost, shift, face in (("steps", 0.14, colour), ("time", -0.14, "white")):
            (row,) = own[(own.method == name) & (own.cost == cost)].itertuples()
            if cost == "time" and row.reused:
                continue
            axis.errorbar(
                row.difference, place + shift, xerr=2 * np.nan_to_num(row.stderr), fmt="o", ms=5, elinewidth=1, lw=0,
                color=colour, mfc=face,
            )  # fmt: skip
    axis.axvline(0.0, color="0.6", lw=0.8, ls=":", zorder=0)
    axis.set_yticks(range(len(order)), [NAMES.get(name, name) for name in order], fontsize=8.5)
    axis.set_xlabel(MEASURES["target"])
    axis.set_title("filled: equal steps; open: equal time", fontsize=10)
    axis.grid(axis="x", alpha=0.3, lw=0.5)


def _heat_map(axis: Axes, results: Mapping[str, xarray.Dataset]) -> None:
    """Draws the difference of each domain's loss; bold with a dot where it is clear after Holm's correction."""
    table = by_domain(results)
    names = [name for name in methods(results) if name != REFERENCE]
    domains = list(dict.fromkeys(table.domain))
    cells = table.set_index(["domain", "method"])
    values = cells.difference.unstack("method").loc[domains, names].to_numpy()
    # One method that is far off must not make all others white.
    limit = float(np.nanquantile(np.abs(values), 0.9)) or 1.0
    axis.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    for y, domain in enumerate(domains):
        for x, name in enumerate(names):
            is_clear = cells.verdict[domain, name] != "undecided"
            axis.text(
                x, y, f"{values[y, x]:+.3f}" + ("•" if is_clear else ""), ha="center", va="center", fontsize=8.5,
                color="white" if abs(values[y, x]) > 0.75 * limit else "black",
                fontweight="bold" if is_clear else "normal",
            )  # fmt: skip
    base = results[REFERENCE]["loss"].isel(step=-1).mean("seed")
    axis.set_xticks(range(len(names)), [NAMES.get(name, name) for name in names], fontsize=8.5)
    labels = [f"{domain} ({float(base.sel(domain=domain)):.2f})" for domain in domains]
    axis.set_yticks(range(len(domains)), labels, fontsize=8.5)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xlabel(
        "by domain at equal steps; in brackets the uniform mix's loss; •: p ≤ 0.05 after Holm's correction over cells",
        fontsize=9,
    )


def _weights(part, results: Mapping[str, xarray.Dataset]) -> None:
    """Draws the weights of each moving method, those that move."""
    panels = [(name, kind) for name in moving(results) for kind in _moved(results[name])]
    columns = max(min(6, len(panels)), 1)
    rows = max(-(-len(panels) // columns), 1)
    axes = part.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, kind) in zip(axes.flat, panels, strict=False):
        mean = results[name][kind].mean("seed")
        for number, domain in enumerate(mean["domain"].values):
            style = {"color": COLOURS[number % len(COLOURS)], "ls": ("-", "--")[number // len(COLOURS) % 2]}
            axis.plot(mean["step"], mean.sel(domain=domain), lw=1.4, label=str(domain), **style)
        found = ", by a proxy" if name in METHODS and METHODS[name].stages > 1 else ""
        axis.set_title(f"{NAMES.get(name, name)}{found}\n{_KINDS[kind]}", fontsize=9)
        axis.grid(alpha=0.3, lw=0.5)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[max(len(panels) - columns, 0) : len(panels)]:
        axis.set_xlabel("step", fontsize=8.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("share", fontsize=8.5)
    # After all lines: limits that are set end the fitting of the axis, which all panels share.
    axes[0, 0].set_ylim(bottom=0.0)
    if panels:
        lines, labels = axes.flat[0].get_legend_handles_labels()
        part.legend(lines, labels, loc="outside lower center", ncols=len(labels), fontsize=8.5, frameon=False)


def _moved(data: xarray.Dataset) -> list[str]:
    """Returns the kinds of weights that move, or the sampling weights where a proxy has chosen both; each kind once."""
    moved = [kind for kind in _KINDS if float((data[kind] - data[kind].isel(step=0)).std()) > 1e-4]
    if not moved or np.allclose(data["loss_weight"], data["sampling_weight"], atol=1e-6):
        return ["sampling_weight"]
    return moved
