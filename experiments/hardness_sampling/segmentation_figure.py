"""Draws the figure of the segmentation of brain tumours: paper 004, tables 1 and 2, figures 2 and 3."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from experiments.hardness_sampling.segmentation_report import MAIN, NESTEROV, name
from mixjax.data.segmentation import REGIONS

__all__ = ["figure"]

# The colour of each label in the figure.
LABELS = {"background": "black", "whole alone": "tab:green", "core alone": "gold", "enhancing": "tab:red"}


def figure(results, centre: str, simulated: bool):
    """Draws figures 2 and 3: one test case with its truth and predictions, and Dice scores by method and by centre."""
    bars, by_centre = {}, {}
    for run, data in results.items():
        there = (data["case"] == centre).values
        for method in data["method"].values:
            scores = data["dice"].sel({"method": method})
            bars[f"{run}, {method}"] = scores
            if method in ("ERM", name(MAIN, True)):
                by_centre[f"{centre}: {run}, {method}"] = scores.isel(case=there)
                by_centre[f"others: {run}, {method}"] = scores.isel(case=~there)
    by_centre = dict(sorted(by_centre.items(), key=lambda item: item[0].startswith("others")))
    heights = [3.2, 1.3 + 0.24 * len(bars), 1.3 + 0.24 * len(by_centre)]
    fig = plt.figure(figsize=(14, sum(heights) + 0.8), layout="constrained")
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=heights)
    run = NESTEROV if NESTEROV in results else next(iter(results))
    _example(top, results[run].isel(seed=0), f"a test case of {centre!r} in its plane of most enhancing tumour; {run}")
    _distributions(middle, bars, "all test cases")
    _distributions(bottom, by_centre, f"test cases of {centre!r} and of the other centres")
    seeds = next(iter(results.values())).sizes["seed"]
    what = "SIMULATED tumours and scanners on real anatomies" if simulated else "BraTS"
    fig.suptitle(f"{what}: paper 004, tables 1 and 2, figures 2 and 3 ({seeds} seeds)", fontsize=12)
    return fig


def _example(figure, data: xarray.Dataset, title: str) -> None:
    """Draws the contrasts, the truth and the predicted labels of one plane of one case."""
    images = {str(contrast): data["shown_image"].sel(contrast=contrast) for contrast in data["contrast"].values}
    labels = {"truth": data["shown_truth"]}
    for method in ("ERM", name(MAIN, True)):
        if method in data["method"].values:
            labels[method] = data["shown"].sel({"method": method})
    axes = figure.subplots(1, len(images) + len(labels))
    colours = ListedColormap(list(LABELS.values()))
    for axis, (label, plane) in zip(axes, (images | labels).items(), strict=True):
        style = {"cmap": colours, "vmin": -0.5, "vmax": 3.5} if label in labels else {"cmap": "gray"}
        axis.imshow(plane.values.T, origin="lower", interpolation="nearest", **style)
        axis.set(title=label, xticks=[], yticks=[])
    handles = [Line2D([], [], marker="s", ls="", color=colour, label=label) for label, colour in LABELS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LABELS), fontsize=9)
    figure.suptitle(title, fontsize=10)


def _colour(label: str) -> str:
    """Returns the colour of a method: ERM, DRO with importance sampling, and DRO without it have one each.

    A method that draws each centre alike has a fourth.
    """
    if label.endswith("centres alike"):
        return "C2"
    if label.endswith("ERM"):
        return "0.4"
    return "C0" if label.endswith("IS") else "C1"


def _distributions(figure, bars: Mapping[str, xarray.DataArray], title: str) -> None:
    """Draws percentiles, interquartile range, median and mean over cases and seeds, with a line for each method."""
    axes = figure.subplots(1, len(REGIONS), sharey=True)
    places = np.arange(len(bars))[::-1]
    for axis, region in zip(axes, REGIONS, strict=True):
        for place, (label, dice) in zip(places, bars.items(), strict=True):
            values = dice.sel(region=region).values
            low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
            colour = _colour(label)
            axis.plot([low, high], [place, place], color=colour, lw=1)
            axis.plot([first, third], [place, place], color=colour, lw=6, solid_capstyle="butt", alpha=0.6)
            axis.plot(middle, place, "|", color="black", ms=9, mew=1.5)
            axis.plot(values.mean(), place, ".", color="black")
        axis.set(xlabel="Dice (%)", title=region, ylim=(-0.7, len(bars) - 0.3), yticks=places, yticklabels=list(bars))
        axis.grid(alpha=0.3, lw=0.5, axis="x")
    handles = [
        Line2D([], [], color="0.4", lw=1, label="5th to 95th percentile"),
        Line2D([], [], color="0.4", lw=6, alpha=0.6, label="interquartile range"),
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.5, label="median"),
        Line2D([], [], color="black", marker=".", ls="", label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(title, fontsize=10)
