"""Draws curves with bands, and intervals, as SVG that a page holds itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixjax.runner.pages.elements import Html, element

__all__ = ["Chart", "Series", "interval", "legend", "line_chart", "ticks"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 220, 46, 350, 10, 192
# A range of more than this factor is drawn on a logarithmic axis.
_DECADES = 300.0


class Series(NamedTuple):
    """Holds one curve of a chart.

    Attributes:
        name: what the legend calls it.
        mean: ``[points]``; NaN leaves a gap.
        low: ``[points]``, the lower end of the band; NaN where there is none.
        high: ``[points]``, the upper end.
        number: place of its name among all names of the section, which gives it the same colour in each chart.
    """

    name: str
    mean: NDArray[np.floating]
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    number: int


class Chart(NamedTuple):
    """Holds the curves of a chart and what its axes are called.

    Attributes:
        title: the line above it, or "".
        x_name: name of the horizontal axis.
        x: ``[points]``.
        series: the curves.
    """

    title: str
    x_name: str
    x: NDArray[np.floating]
    series: Sequence[Series]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns round numbers between two ends, evenly spaced by 1, 2 or 5 times a power of ten.

    Args:
        low: the lower end.
        high: the upper end, above it.
        most: how many steps between them at the most.

    Returns:
        Numbers in ascending order, mostly at least half as many as the steps.

    Example:
        >>> ticks(0.0, 1.0, 2), ticks(20.0, 800.0, 4)
        ([0.0, 0.5, 1.0], [200.0, 400.0, 600.0, 800.0])
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axis(NamedTuple):
    """Maps values onto pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values):
        """Returns where values lie, in pixels."""
        values = np.asarray(values, np.float64)
        if self.log:
            values = np.log10(np.where(values > 0, values, np.nan))
        # Values far beyond the range may become infinite, and are left out or cut off by the callers.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.start + (values - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most):
        """Returns values with marks, and their texts."""
        found = ticks(self.low, self.high, most)
        values = [10.0**tick for tick in found] if self.log else found
        return [(value, _short(value)) for value in values]


def _short(value: float) -> str:
    """Writes a number of an axis; multiples of a step such as 0.1 come with an error of rounding."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.10g}" if abs(value) >= 1e3 else f"{value:.4g}"
    return f"{value:.3g}"


def _axis(values: NDArray[np.floating], start: float, end: float, *, may_be_log: bool) -> _Axis:
    """Chooses the range of an axis."""
    # Beyond this the range itself would not be finite.
    finite = values[np.isfinite(values) & (np.abs(values) < 1e300)]
    if not finite.size:
        return _Axis(0.0, 1.0, start, end)
    low, high = float(finite.min()), float(finite.max())
    log = may_be_log and low > 0 and high / low > _DECADES
    if log:
        low, high = math.log10(low), math.log10(high)
    # A constant is drawn in the middle.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = 0.5 * max(abs(low), 1e-12)
        low, high = low - margin, high + margin
    return _Axis(low, high, start, end, log)


def line_chart(chart: Chart, beside: Sequence[Chart] = ()) -> Html:
    """Draws a chart. The script of the page shows its values below the pointer.

    Args:
        chart: what is drawn.
        beside: charts that have the same vertical axis.

    Returns:
        A figure with an SVG.
    """
    across = _axis(chart.x, _LEFT, _RIGHT, may_be_log=False)
    every = [array for each in (chart, *beside) for one in each.series for array in (one.mean, one.low, one.high)]
    up = _axis(np.concatenate(every) if every else np.zeros(0), _BOTTOM, _TOP, may_be_log=True)
    scale = {"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM, "name": chart.x_name, "log": up.log}
    scale |= {"x0": across.low, "x1": across.high, "y0": up.low, "y1": up.high}
    names = ", ".join(one.name for one in chart.series[:12])
    label = f"{chart.title or 'Chart'}: {names} over {chart.x_name}. The arrow keys show values."
    drawing = element(
        "svg",
        *_grid(across, up, chart.x_name),
        *(_curve(one, across.place(chart.x), up) for one in chart.series),
        element("line", class_="cursor", y1=_TOP, y2=_BOTTOM),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        tabindex=0,
        aria_label=label,
        data_scale=json.dumps(scale),
    )
    return element("figure", element("figcaption", chart.title) if chart.title else None, drawing, class_="chart")


def _grid(across: _Axis, up: _Axis, x_name: str) -> list[Html]:
    marks = []
    for value, text in up.ticks(5):
        y = f"{float(up.place(value)):.1f}"
        marks.append(element("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        marks.append(element("text", text, x=_LEFT - 4, y=y, dy="0.35em", text_anchor="end"))
    for value, text in across.ticks(4):
        x = float(across.place(value))
        anchor = "end" if x > _RIGHT - 12 else "middle"
        marks.append(element("text", text, x=f"{x:.1f}", y=_BOTTOM + 13, text_anchor=anchor))
    marks.append(element("text", x_name, x=(_LEFT + _RIGHT) / 2, y=_HEIGHT - 2, text_anchor="middle"))
    return marks


def _curve(one: Series, x: NDArray[np.floating], up: _Axis) -> Html:
    mean, low, high = (up.place(values) for values in (one.mean, one.low, one.high))
    pieces = []
    for start, end in _pieces(np.isfinite(low) & np.isfinite(high)):
        places = np.r_[np.arange(start, end), np.arange(end - 1, start - 1, -1)]
        edge = np.r_[high[start:end], low[start:end][::-1]]
        pieces.append(f"M{_points(x[places], edge)}Z")
    band = element("path", class_="band", d="".join(pieces)) if pieces else None
    lines = [f"M{_points(x[start:end], mean[start:end])}" for start, end in _pieces(np.isfinite(mean))]
    # A path of a single point has no length, and is seen as a dot only with round ends.
    line = element("path", class_="line", d="".join(lines), stroke_linecap="round")
    return element("g", band, line, class_=f"series {_style(one.number)}", data_name=one.name)


def _style(number: int) -> str:
    """Returns the classes of a colour and, beyond ten names, of a dash."""
    dash = number // 10 % 3
    return f"c{number % 10}" + (f" d{dash}" if dash else "")


def _points(x, y) -> str:
    """Writes places with a tenth of a pixel. A path goes on in a line where no letter stands between two points."""
    texts = [f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return " ".join(texts if len(texts) > 1 else texts * 2)


def _pieces(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns where the runs of true values begin and end."""
    edges = np.flatnonzero(np.diff(np.r_[False, known, False].astype(np.int8))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def legend(names: Sequence[str]) -> Html:
    """Makes a legend of buttons; a pressed one lifts its curves out of all charts of the section.

    Args:
        names: in the order of their colours.

    Returns:
        A list.
    """
    items = []
    for number, name in enumerate(names):
        path = element("path", class_="line", d="M1,4L21,4")
        dash = element("svg", path, class_=_style(number), viewBox="0 0 22 8", aria_hidden="true")
        items.append(element("li", element("button", dash, name, type="button", aria_pressed="false", data_name=name)))
    return element("ul", *items, class_="legend")


def interval(
    value: float | None, low: float | None, high: float | None, *, at: float | None, ends: tuple[float, float] | None
) -> Html | None:
    """Draws a value with its interval beside a mark.

    Args:
        value: the dot.
        low: the lower end of the bar; None draws no bar.
        high: its upper end.
        at: a number that is marked, such as a threshold; None for none.
        ends: the range of the axis; None takes what is drawn, with a margin.

    Returns:
        An SVG, or None without a finite value.
    """
    if value is None or not math.isfinite(value):
        return None
    low, high, at = (None if x is None or not math.isfinite(x) else x for x in (low, high, at))
    drawn = np.array([x for x in (value, low, high, at, *(ends or ())) if x is not None])
    axis = _axis(drawn, 8.0, 162.0, may_be_log=False)

    def place(x):
        return f"{float(np.clip(axis.place(x), 2.0, 168.0)):.1f}"

    parts = [element("line", class_="axis", x1=4, x2=166, y1=11, y2=11)]
    if at is not None:
        parts.append(element("line", class_="at", x1=place(at), x2=place(at), y1=1, y2=21))
    text = f"{value:.4g}"
    if low is not None and high is not None:
        parts.append(element("line", class_="bar", x1=place(low), x2=place(high), y1=11, y2=11))
        text += f", interval {low:.4g} to {high:.4g}"
    if at is not None:
        text += f", mark at {at:.4g}"
    parts.append(element("circle", class_="dot", cx=place(value), cy=11, r=4))
    title = element("title", text)
    return element("svg", title, *parts, class_="interval", viewBox="0 0 170 22", role="img", aria_label=text)
