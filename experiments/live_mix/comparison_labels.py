"""Places the names of points in a panel so that they hide neither each other nor the points."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

__all__ = ["place_labels"]

# Directions from a point to its label, in the order in which they are tried: right first, since texts are read so.
_DIRECTIONS = [(1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1)]
_DISTANCES = (6, 14, 24, 36, 50)


def place_labels(axis: Axes, bars: Sequence[tuple[float, float, float, float]] = ()) -> None:
    """Moves the annotations of a panel to the nearest free places, and draws a thin line to those that are far.

    Labels are placed one by one. Each takes the place of least overlap with the labels before it, with all points and
    bars and with what lies outside of the panel, nearest first.

    Args:
        axis: the panel, with its final limits; an annotation's ``xy`` is its point.
        bars: lines that labels should not hide, ``(left, low, right, high)`` in the panel's coordinates.
    """
    labels = [text for text in axis.texts if isinstance(text, Annotation)]
    figure = axis.figure
    # Layout decides where the panel is, and text has no size before it was drawn.
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    panel = axis.get_window_extent(renderer)
    points = np.array([axis.transData.transform(label.xy) for label in labels])
    scale = figure.dpi / 72.0
    taken = [np.array([x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale]) for x, y in points]
    ends = [axis.transData.transform([each[:2], each[2:]]).ravel() for each in bars]
    # A thin line counts as one of some width: what it crosses is hidden all the same.
    lines = [each + 2 * scale * np.array([-1, -1, 1, 1]) for each in ends]
    inside = np.array([panel.x0, panel.y0, panel.x1, panel.y1])
    # Crowded points choose first: points apart from all others have room anywhere.
    crowd = [np.sort(np.hypot(*(points - point).T))[: min(4, len(points))].sum() for point in points]
    for number in np.argsort(crowd, kind="stable"):
        label, point = labels[number], points[number]
        size = label.get_window_extent(renderer)
        options = []
        for distance, (x, y) in itertools.product(_DISTANCES, _DIRECTIONS):
            centre = point + scale * distance * np.array([x, y])
            left = centre[0] - {1: 0.0, 0: 0.5, -1: 1.0}[x] * size.width
            low = centre[1] - {1: 0.0, 0: 0.5, -1: 1.0}[y] * size.height
            box = np.array([left, low, left + size.width, low + size.height])
            others = [each for place, each in enumerate(taken) if place != number]
            hidden = sum(_overlap(box, each) for each in [*others, *lines])
            # What lies outside of the panel may be cut off, which is worse than a line through a letter.
            hidden += 5 * (size.width * size.height - _overlap(box, inside))
            options.append((hidden + 0.5 * scale * distance, distance, x, y, box))
        _, distance, x, y, box = min(options, key=lambda option: option[0])
        taken.append(box)
        label.set(ha={1: "left", 0: "center", -1: "right"}[x], va={1: "bottom", 0: "center", -1: "top"}[y])
        label.set_position((distance * x, distance * y))
        label.anncoords = "offset points"
        if distance > _DISTANCES[0]:
            style = {"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 3}
            axis.annotate(
                "", label.xy, xytext=(distance * x, distance * y), textcoords="offset points", arrowprops=style
            )


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the area that two boxes share, each ``[left, low, right, high]``."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
