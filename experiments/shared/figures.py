"""The papers' panels: one row a run, one column a metric, one line a method, with a band over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.figure import Figure

from mixjax.runner.claims import Claim

_VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}


class Panel(NamedTuple):
    """A column of the figure.

    Attributes:
        metric: variable of the data set, with dims ``seed``, ``method`` and ``step``.
        label: of the vertical axis, units included.
        scale: ``"linear"`` or ``"log"``.
        limits: of the vertical axis, or None.
        reference: a horizontal line ``(value, text)``, or None.
    """

    metric: str
    label: str
    scale: str = "linear"
    limits: tuple[float, float] | None = None
    reference: tuple[float, str] | None = None


def curves(
    results: Mapping[str, xarray.Dataset],
    panels: Sequence[Panel],
    labels: Mapping[str, str],
    title: str,
    styles: Mapping[str, Mapping] | None = None,
) -> Figure:
    """Draws every run's panels; lines are means over seeds, bands are two standard errors to each side.

    Args:
        results: run name to data set.
        panels: the columns.
        labels: method to legend text, in the order of the legend.
        title: of the figure.
        styles: method to matplotlib line properties, where the default colours are not enough.

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
                _line(axis, data[panel.metric].sel({"method": method}), style)
            if panel.reference is not None:
                value, text = panel.reference
                axis.axhline(value, color="0.4", lw=1, ls=":", label=text)
            axis.set(xlabel="training steps", ylabel=panel.label, yscale=panel.scale, title=name)
            if panel.limits is not None:
                axis.set_ylim(panel.limits)
            axis.grid(alpha=0.3, lw=0.5)
    seeds = next(iter(results.values())).sizes["seed"]
    figure.suptitle(f"{title}\nmean over {seeds} paired seeds; bands: ±2 standard errors", fontsize=11)
    entries = {text: line for axis in axes[0] for line, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 2 * columns))
    return figure


def _line(axis, values, style):
    mean, stderr = values.mean("seed"), values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
    axis.plot(values.step, mean, **{"lw": 1.4, **style})
    axis.fill_between(values.step, mean - 2 * stderr, mean + 2 * stderr, color=style["color"], alpha=0.25, lw=0)


def text(values, digits: int = 3) -> str:
    """Mean, to so many digits, and standard error over seeds."""
    values = np.asarray(values, np.float64)
    return f"{values.mean():.{digits}g} ± {values.std(ddof=1) / np.sqrt(values.size):.1g}"


def told(claim: Claim) -> str:
    """A claim's number and verdict, for another's note."""
    error = "" if claim.stderr is None else f" ± {claim.stderr:.2g}"
    value = "no number" if claim.value is None else f"{claim.value:.3g}{error}"
    return f"{value}, {_VERDICTS[claim.holds]}"


def points(axis, x, values, **style):
    """Means over seeds with two standard errors to each side."""
    error = 2 * values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
    axis.errorbar(x, values.mean("seed"), error, **{"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, **style})


def finish(figure, title):
    """Grids, legends and the title."""
    for axis in figure.axes:
        axis.grid(alpha=0.3, lw=0.5)
        axis.legend(loc="best", fontsize=8.5)
    figure.suptitle(title, fontsize=11)
    return figure
