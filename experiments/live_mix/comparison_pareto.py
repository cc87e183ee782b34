"""Draws methods by their mean and worst-domain losses, with the front of those that no other beats in both."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments.live_mix.comparison_labels import place_labels
from experiments.live_mix.comparison_tables import COSTS, MEASURES, NAMES, REFERENCE, STATIC

__all__ = ["COLOURS", "colour_of", "front", "pareto"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00", "#7F7F7F")
"""Okabe and Ito's colours, which can be told apart with any kind of colour vision, and two more."""

# A point this many times farther from the uniform mix than the median of all is drawn at the panel's edge.
_FAR = 4.0


def colour_of(method: str) -> str:
    """Returns the colour of static mixes, or that of methods whose weights move."""
    return COLOURS[0] if method in STATIC else COLOURS[1]


def pareto(axis: Axes, table: pd.DataFrame, cost: str) -> None:
    """Draws each method's differences to the uniform mix: the mean loss against the worst domain's.

    Methods far from all others, which would leave no room between those, stand at the edge with their numbers.

    Args:
        axis: where to draw.
        table: from :func:`experiments.live_mix.comparison_tables.compared`, against the uniform mix.
        cost: ``"steps"`` or ``"time"``.
    """
    points = _points(table, cost)
    is_far = _is_far(points.x) | _is_far(points.y)
    near = points[~is_far]
    limits = [_limits(near[name], near[f"{name}_error"]) for name in ("x", "y")]
    axis.set(xlim=limits[0], ylim=limits[1])
    axis.axhline(0.0, color="0.6", lw=0.8, ls=":", zorder=0)
    axis.axvline(0.0, color="0.6", lw=0.8, ls=":", zorder=0)
    for name, point in points.iterrows():
        style = {"color": colour_of(str(name)), "zorder": 2, "ms": 5}
        text = NAMES.get(str(name), str(name))
        x, y = point.x, point.y
        if is_far[name]:
            text += f" ({x:+.2f}, {y:+.2f})"
            x, y = (float(np.clip(value, low, high)) for value, (low, high) in zip((x, y), limits, strict=True))
            axis.plot(x, y, "D", mfc="white", clip_on=False, **style)
        else:
            marker = "s" if name in STATIC else "o"
            axis.errorbar(x, y, point.y_error, point.x_error, fmt=marker, elinewidth=1, lw=0, **style)
        axis.annotate(text, (x, y), fontsize=8.5, color=style["color"])
    axis.set_title(f"at equal {COSTS[cost]}", fontsize=10)
    axis.set_xlabel(MEASURES["mean"])
    axis.set_ylabel(MEASURES["worst"])
    axis.locator_params(axis="x", nbins=5)
    axis.grid(alpha=0.3, lw=0.5)
    _front(axis, near)


def front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Returns the places of the points that no other point beats in both coordinates, from the lowest x on.

    Args:
        x: numbers, lower is better; NaN is never on the front.
        y: as many numbers, lower is better.

    Example:
        >>> front([0.0, 1.0, 2.0, 1.5], [2.0, 1.0, 0.0, 1.5])
        [0, 1, 2]
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    found, lowest = [], np.inf
    for place in np.lexsort((y, x)):
        if np.isfinite(x[place]) and y[place] < lowest:
            found.append(int(place))
            lowest = y[place]
    return found


def _points(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Returns the mean's and the worst domain's difference of each method, the uniform mix at zero among them."""
    chosen = table[table.cost == cost].set_index(["method", "measure"])[["difference", "stderr"]].unstack("measure")
    points = pd.DataFrame(
        {
            "x": chosen["difference", "mean"],
            "y": chosen["difference", "worst"],
            "x_error": 2 * chosen["stderr", "mean"],
            "y_error": 2 * chosen["stderr", "worst"],
        }
    )
    points.loc[REFERENCE] = 0.0
    return points[np.isfinite(points.x) & np.isfinite(points.y)]


def _is_far(values: pd.Series) -> pd.Series:
    # What is better than the uniform mix is never far: it may be on the front.
    away = values.abs()
    return (values > 0) & (away > _FAR * away[away > 0].median())


def _limits(values: pd.Series, errors: pd.Series) -> tuple[float, float]:
    """Returns limits that hold the points with their bars and leave room for labels."""
    errors = errors.fillna(0.0)
    low, high = float((values - errors).min()), float((values + errors).max())
    room = 0.14 * (high - low) or 1.0
    return low - room, high + room


def _front(axis: Axes, points: pd.DataFrame) -> None:
    """Draws the border of what some method beats, out to the panel's edges, and places the labels beside it."""
    best = points.iloc[front(points.x, points.y)]
    x, y = [best.x.iloc[0], *best.x, axis.get_xlim()[1]], [axis.get_ylim()[1], *best.y, best.y.iloc[-1]]
    axis.step(x, y, where="post", color="0.5", lw=1.2, zorder=1)
    bars = [(each.x - each.x_error, each.y, each.x + each.x_error, each.y) for each in points.itertuples()]
    bars += [(each.x, each.y - each.y_error, each.x, each.y + each.y_error) for each in points.itertuples()]
    place_labels(axis, bars)
