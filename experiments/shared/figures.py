"""Draws what the figures of several papers share: lines with bands over seeds, points with error bars, legends."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.shared.statistics import error_bars

__all__ = ["Panel", "curves", "finish", "grid", "line", "points", "quantile_band"]


class Panel(NamedTuple):
    """Describes a column of the figure that :func:`curves` draws.

    Attributes:
        metric: the variable of the data set, with dims ``seed``, ``method`` and ``step``.
        label: the vertical axis's label, units included.
        scale: the vertical axis's scale.
        limits: the vertical axis's limits, or None.
        reference: a horizontal line ``(value, text)``, or None.
    """

    metric: str
    label: str
    scale: Literal["linear", "log"] = "linear"
    limits: tuple[float, float] | None = None
    reference: tuple[float, str] | None = None


def curves(
    results: Mapping[str, xarray.Dataset],
    panels: Sequence[Panel],
    labels: Mapping[str, str],
    title: str,
    styles: Mapping[str, Mapping] | None = None,
) -> Figure:
    """Draws one row of panels for each run and one line for each method, with a band over the seeds.

    Lines are means over seeds, bands are two standard errors to each side.

    Args:
        results: from a run's name to its data set.
        panels: the columns.
        labels: from a method to its text in the legend, in the order of the legend.
        title: the figure's title.
        styles: from a method to matplotlib line properties, where the default colours are not enough.

    Returns:
        The figure, its legend below the panels.
    """
    rows, columns = len(results), len(panels)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.1 * rows + 0.9), squeeze=False, layout="constrained"
    )
    for row, (name, data) in zip(axes, results.items(), strict=True):
        for axis, panel in zip(row, panels, strict=True):
            for number, method in enumerate(labels):
                style = {"color": f"C{number}", "label": labels[method], **(styles or {}).get(method, {})}
                line(axis, data.step, data[panel.metric].sel({"method": method}), **style)
            if panel.reference is not None:
                value, text = panel.reference
                axis.axhline(value, color="0.4", lw=1, ls=":", label=text)
            axis.set(xlabel="training steps", ylabel=panel.label, yscale=panel.scale, title=name)
            if panel.limits is not None:
                axis.set_ylim(panel.limits)
    grid(axes.flat)
    seeds = next(iter(results.values())).sizes["seed"]
    figure.suptitle(f"{title}\nmean over {seeds} paired seeds; bands: ±2 standard errors", fontsize=11)
    entries = {text: line for axis in axes[0] for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 2 * columns))
    return figure


def line(axis: Axes, x: Any, values: xarray.DataArray, *, alpha: float = 0.25, **style: Any) -> None:
    """Draws the mean over the seeds with a band of two standard errors to each side.

    Args:
        axis: where to draw.
        x: the places ``[n]``.
        values: with the dimensions ``seed`` and that of ``x``.
        alpha: the band's opacity.
        **style: matplotlib line properties; ``color`` is needed, and is the band's too.
    """
    mean, error = error_bars(values)
    axis.plot(x, mean, **{"lw": 1.4, **style})
    axis.fill_between(x, mean - error, mean + error, color=style["color"], alpha=alpha, lw=0)


def quantile_band(axis: Axes, x: Any, values: xarray.DataArray, *, alpha: float = 0.2, **style: Any) -> None:
    """Draws a band from the 10 % to the 90 % quantile over the seeds.

    Args:
        axis: where to draw.
        x: the places ``[n]``.
        values: with the dimensions ``seed`` and that of ``x``.
        alpha: the band's opacity.
        **style: matplotlib's properties of a filled area.
    """
    low, high = (values.quantile(q, "seed") for q in (0.1, 0.9))
    axis.fill_between(x, low, high, alpha=alpha, lw=0, **style)


def points(axis: Axes, x: Any, values: xarray.DataArray, **style: Any) -> None:
    """Draws means over the seeds with error bars of two standard errors to each side.

    Args:
        axis: where to draw.
        x: the places.
        values: with the dimensions ``seed`` and that of ``x``.
        **style: properties of ``Axes.errorbar``.
    """
    mean, error = error_bars(values)
    axis.errorbar(x, mean, error, **{"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, **style})


def grid(axes: Iterable[Axes], **options: Any) -> None:
    """Draws a faint grid into each of the axes.

    Args:
        axes: the axes.
        **options: further arguments of ``Axes.grid``, such as ``axis="x"``.
    """
    for axis in axes:
        axis.grid(alpha=0.3, lw=0.5, **options)


def finish(figure: Figure, title: str) -> Figure:
    """Draws grids and legends into all axes of a figure, gives it its title and returns it."""
    grid(figure.axes)
    for axis in figure.axes:
        axis.legend(loc="best", fontsize=8.5)
    figure.suptitle(title, fontsize=11)
    return figure
