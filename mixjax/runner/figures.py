"""Draws a figure of any sweep: every metric against what was varied."""

from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.legends import named_legend
from mixjax.runner.frames import (
    column_names,
    final_values,
    finite_values,
    holds_numbers,
    holds_text,
    label_texts,
    with_vector_texts,
)
from mixjax.runner.results import Results
from mixjax.runner.texts import counted
from mixjax.sweeps.arrays import as_computable

with requires("experiments", "mixjax.runner.figures"):
    import xarray as xr

__all__ = ["sweep_figure"]

_MAX_METRICS = 6
_MAX_COLUMNS = 3
_MAX_IN_LEGEND = 24
_NUM_COLOURS = 10
# Lines of one colour are told apart by their marker and style.
_STYLES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "x", "D", "v", "P", "*")


def sweep_figure(results: Results) -> Any:
    """Draws each metric's final value against what was varied: mean ± standard error over seeds, and over nothing else.

    Each metric, at most six of them, has a panel, at most three in a row. Each run has such panels for its first
    numeric axis, or for each numeric column of its points. A panel has one line for each combination of everything else
    that varies: the other axes, labels in the points, and the metric's dimensions with text labels. The dimension that
    most metrics have, such as the method, gives the colours, the same in all panels, and the others the markers. Runs
    that are not finite are left out, and their number is in the panel's title.

    Args:
        results: run name -> metrics, as :func:`mixjax.sweep` returns them.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is missing (extra ``experiments``).

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> def train(key, hparams, data):
        ...     return {"error": hparams["rate"] * jax.random.normal(key)}
        >>> result = mixjax.sweep(train, seeds=3, axes={"rate": [0.1, 1.0, 10.0]})
        >>> figure = sweep_figure({"run": result})
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_xscale()
        ('rate', 'log')
    """
    with requires("experiments", "mixjax.runner.figures.sweep_figure"):
        import matplotlib.pyplot as plt

    results = {run: with_vector_texts(_computable(dataset)) for run, dataset in results.items()}
    numeric = [str(name) for data in results.values() for name, values in data.items() if holds_numbers(values)]
    numeric = list(dict.fromkeys(numeric))
    metrics = numeric[:_MAX_METRICS]
    groups = [(run, varied) for run, dataset in results.items() for varied in _varied(dataset)]
    columns = min(max(len(metrics), 1), _MAX_COLUMNS)
    rows_each = max(-(-len(metrics) // columns), 1)
    num_rows = rows_each * len(groups)
    size = 4.2 * columns, 2.9 * num_rows + 0.6
    figure, axes = plt.subplots(num_rows, columns, figsize=size, squeeze=False, layout="constrained")
    looks = _looks(results, metrics)
    handles: dict[str, Any] = {}  # label -> its line in the first panel that has it, which the legend shows
    for place, (run, varied) in enumerate(groups):
        panels = axes[place * rows_each : (place + 1) * rows_each].ravel()
        for panel in panels[max(len(metrics), 1) :]:
            panel.remove()
        for panel, metric in zip(panels, metrics, strict=False):
            if metric not in results[run]:
                panel.set_axis_off()
                continue
            notes = _draw(panel, results[run][metric], varied, looks, handles)
            title = [run] if len(results) > 1 else []
            if notes:
                title.append("; ".join(notes))
            panel.set_title("\n".join(title), fontsize=9)
            # Names of runs, metrics and axes may hold dollar signs. Numbers along a logarithmic axis are formulas.
            for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
                text.set_parse_math(False)
    left_out = f"; {len(metrics)} of {len(numeric)} metrics" if len(metrics) < len(numeric) else ""
    figure.suptitle(f"mean ± standard error over seeds{left_out}", fontsize=10)
    if len(handles) > 1:
        shown = list(handles.items())[:_MAX_IN_LEGEND]
        more = len(handles) - len(shown)
        title = f"and {more} more" if more else None
        lines, labels = [line for _, line in shown], [label for label, _ in shown]
        named_legend(figure, lines, labels, title=title, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _computable(dataset: xr.Dataset) -> xr.Dataset:
    """Returns metrics of types that NumPy computes with: a sweep gives bfloat16, which files have as float32."""
    return dataset.map(lambda values: values.copy(data=as_computable(values.values)), keep_attrs=True)


class _Varied(NamedTuple):
    """Names what a row of panels has on its horizontal axes.

    Attributes:
        dim: the dimension along which the points lie, or None where no number varies.
        name: the coordinate or the column of points that places them, or None.
    """

    dim: str | None
    name: str | None


def _varied(dataset: xr.Dataset) -> list[_Varied]:
    """Returns all numeric columns of points, or else the first numeric axis, or one row if no number varies."""
    if not dataset.data_vars:
        return [_Varied(None, None)]
    dims = [str(dim) for dim in next(iter(dataset.data_vars.values())).dims]
    columns = column_names(dataset, "point") if "point" in dataset.dims else []
    numeric = [_Varied("point", name) for name in columns if not holds_text(dataset[name])]
    if not numeric:
        axes = [dim for dim in dims[: dims.index("seed")] if dim != "point"]
        numeric = [_Varied(dim, dim) for dim in axes if not holds_text(dataset[dim])][:1]
    return numeric or [_Varied(None, None)]


class _Curve(NamedTuple):
    """Holds one line of a panel.

    Attributes:
        label: the line's text in the legend.
        hue: the part of this text that chooses the colour.
        rest: the other parts, which choose the marker.
        x: where its points lie.
        mean: over the seeds with finite values, one for each point.
        stderr: the standard error of the mean; NaN for fewer than two seeds.
    """

    label: str
    hue: str
    rest: str
    x: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray


def _looks(results: Results, metrics: list[str]) -> dict[str, tuple[int, int]]:
    """Numbers the colour and the marker of each line's label, so that no two labels have both in common if possible."""
    shown = [(data, data[name]) for data in results.values() for name in metrics if name in data]
    dims = [dim for _, values in shown for dim in _text_dims(values)]
    # The first of several that as many metrics have.
    hue = max(dict.fromkeys(dims), key=dims.count, default=None)
    curves = [
        curve
        for data, values in shown
        for varied in _varied(data)
        for curve in _curves(final_values(values)[0], varied, hue)[0]
    ]
    labels = {curve.label: curve for curve in curves}
    hues = list(dict.fromkeys(curve.hue for curve in curves))
    rests = list(dict.fromkeys(curve.rest for curve in curves))
    if 1 < len(hues) <= _NUM_COLOURS and len(rests) <= len(_MARKERS):
        return {label: (hues.index(curve.hue), rests.index(curve.rest)) for label, curve in labels.items()}
    return {label: (i % _NUM_COLOURS, i // _NUM_COLOURS % len(_MARKERS)) for i, label in enumerate(labels)}


def _text_dims(values: xr.DataArray) -> list[str]:
    """Names the dimensions of a metric that have several texts as labels."""
    dims = [str(dim) for dim in values.dims if dim in values.coords and values.sizes[dim] > 1]
    return [dim for dim in dims if holds_text(values[dim])]


def _draw(
    panel: Any, values: xr.DataArray, varied: _Varied, looks: dict[str, tuple[int, int]], handles: dict[str, Any]
) -> list[str]:
    """Draws one panel, adds new lines to the handles, and returns notes for the panel's title."""
    unit = values.attrs.get("units", "")
    values, at = final_values(values)
    curves, lost = _curves(values, varied, None)
    for curve in curves:
        colour, marker = looks[curve.label]
        # Random points come in no order, and a line through them as they come would go back and forth.
        order = np.argsort(curve.x, kind="stable")
        drawn = panel.errorbar(
            curve.x[order],
            curve.mean[order],
            # A single seed has a standard error of NaN: the point is drawn without a bar.
            np.nan_to_num(curve.stderr[order]),
            color=f"C{colour}",
            # Points differ in all of their columns; a line through them would suggest that only this column varies.
            ls="" if varied.dim == "point" else _STYLES[marker % len(_STYLES)],
            marker=_MARKERS[marker],
            ms=3,
            capsize=2,
            lw=1,
        )
        handles.setdefault(curve.label, drawn)
    x = np.concatenate([curve.x for curve in curves])
    # A range of more than a decade or so was most likely chosen evenly in the logarithm.
    if x.size and np.isfinite(x).all() and (x > 0).all() and x.max() >= 20 * x.min():
        panel.set_xscale("log")
    panel.set_xlabel(varied.name or "")
    if varied.name is None:
        panel.set_xticks([])
    panel.set_ylabel(f"{values.name} ({unit})" if unit else str(values.name))
    notes = ["at " + ", ".join(f"{dim} {label}" for dim, label in at.items())] if at else []
    if lost:
        notes.append(f"{counted(lost, 'run')} not finite")
    return notes


def _curves(values: xr.DataArray, varied: _Varied, hue: str | None) -> tuple[list[_Curve], int]:
    """Returns the lines of a panel, and how many values they leave out because they are not finite.

    Args:
        values: a metric at its last step.
        varied: what lies on the horizontal axis.
        hue: the dimension whose labels choose colours; without it the columns of a point do.
    """
    swept = {str(dim) for dim in values.dims[: values.dims.index("seed")]}
    # Where no number varies, each line is one point.
    dim = varied.dim or "all"
    values = values if varied.dim else values.expand_dims("all")
    others = [str(each) for each in values.dims if each not in (dim, "seed")]
    x = np.zeros(1) if varied.name is None else np.asarray(values[varied.name].values, float)
    groups = _text_groups(values, varied)

    kept = values.transpose(dim, "seed", *others).astype(float)
    finite = finite_values(kept)
    kept = kept.where(finite)
    mean, count = kept.sum("seed") / finite.sum("seed").where(lambda n: n > 0), finite.sum("seed")
    # A single seed has no standard error: NaN, in place of a division by zero.
    stderr = kept.std("seed", ddof=1).where(count > 1) / np.sqrt(count.where(count > 1))

    texts = {line: label_texts(values, line) for line in others}
    curves = []
    # Without another dimension, this loop runs once.
    for index in np.ndindex(*(values.sizes[line] for line in others)):
        named = {}
        for line, i in zip(others, index, strict=True):
            if values.sizes[line] > 1:
                # The label of a metric's own dimension speaks for itself, and so do the columns of a point.
                is_axis = line in swept and not column_names(values, line)
                named[line] = f"{line}={texts[line][i]}" if is_axis else texts[line][i]
        for text, places in groups.items():
            parts = ({"point": text} if text else {}) | named
            own = parts.get(hue or "point", "")
            rest = ", ".join(part for line, part in parts.items() if line != (hue or "point"))
            numbers = x[places], mean.values[places, *index], stderr.values[places, *index]
            curves.append(_Curve(", ".join(parts.values()), own, rest, *numbers))
    return curves, int((~finite).sum())


def _text_groups(values: xr.DataArray, varied: _Varied) -> dict[str, list[int]]:
    """Groups the points of a panel by the labels in their columns: a text for the legend -> places of the points."""
    size = values.sizes[varied.dim or "all"]
    columns = (
        [name for name in column_names(values, "point") if holds_text(values[name])] if varied.dim == "point" else []
    )
    texts = [", ".join(f"{name}={values[name].values[i]}" for name in columns) for i in range(size)]
    return {text: [i for i, other in enumerate(texts) if other == text] for text in dict.fromkeys(texts)}
