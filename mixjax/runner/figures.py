"""Draws a figure of any sweep: every metric against what was varied."""

from typing import Any, NamedTuple

import numpy as np

from mixjax.checks import requires
from mixjax.runner.frames import column_names, final_values, finite_values, holds_numbers, holds_text, label_texts
from mixjax.runner.results import Results

with requires("experiments", "mixjax.runner.figures"):
    import xarray as xr

__all__ = ["sweep_figure"]

_MAX_METRICS = 6


def sweep_figure(results: Results) -> Any:
    """Draws each metric's final value against what was varied: mean ± standard error over seeds.

    Each metric, at most six of them, has a column of panels. Each run has a row of panels for its first numeric axis,
    or one for each numeric column of its points. A panel has one line for each label along the second axis and along
    the metric's first dimension with text labels, and averages over all other dimensions. Runs that are not finite are
    left out, and their number is in the panel's title.

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

    numeric = [str(name) for data in results.values() for name, values in data.items() if holds_numbers(values)]
    metrics = list(dict.fromkeys(numeric))[:_MAX_METRICS]
    rows = [(run, varied) for run, dataset in results.items() for varied in _varied(dataset)]
    size = 4.2 * len(metrics), 2.9 * len(rows) + 0.6
    figure, axes = plt.subplots(len(rows), len(metrics), figsize=size, squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}  # label -> its line in the first panel that has it, which the legend shows
    for panels, (run, varied) in zip(axes, rows, strict=True):
        for panel, metric in zip(panels, metrics, strict=True):
            if metric not in results[run]:
                panel.set_axis_off()
                continue
            notes = _draw(panel, results[run][metric], varied, handles)
            title = [run] if len(results) > 1 else []
            if notes:
                title.append("; ".join(notes))
            panel.set_title("\n".join(title), fontsize=9)
    figure.suptitle("mean ± standard error over seeds", fontsize=10)
    if len(handles) > 1:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8)
    return figure


class _Varied(NamedTuple):
    """Names what a row of panels has on its horizontal axes.

    Attributes:
        dim: the dimension along which the points lie, or None where nothing varies.
        name: the coordinate or the column of points that places them, or None.
    """

    dim: str | None
    name: str | None


def _varied(dataset: xr.Dataset) -> list[_Varied]:
    """Returns the first numeric axis, or all numeric columns of points; one row without an axis if nothing varies."""
    dims = [str(dim) for dim in next(iter(dataset.data_vars.values())).dims]
    points = column_names(dataset, "point") if "point" in dataset.dims else []
    if points:
        numeric = [_Varied("point", name) for name in points if not holds_text(dataset[name])]
    else:
        axes = [dim for dim in dims[: dims.index("seed")] if dim != "point"]
        numeric = [_Varied(dim, dim) for dim in axes if not holds_text(dataset[dim])][:1]
    return numeric or [_Varied(None, None)]


class _Curve(NamedTuple):
    """Holds one line of a panel.

    Attributes:
        label: the line's text in the legend.
        mean: over the seeds with finite values, ``[points]``.
        stderr: the standard error of the mean, ``[points]``; NaN for fewer than two seeds.
    """

    label: str
    mean: np.ndarray
    stderr: np.ndarray


def _draw(panel: Any, values: xr.DataArray, varied: _Varied, handles: dict[str, Any]) -> list[str]:
    """Draws one panel, adds new lines to the handles, and returns notes for the panel's title."""
    unit = values.attrs.get("units", "")
    metric = f"{values.name} ({unit})" if unit else str(values.name)
    values, at = final_values(values)
    # Where nothing varies, a dimension of length 1 takes the place of the one along which the points lie.
    if varied.dim is None:
        values = values.expand_dims("all")
    curves, lost = _curves(values, varied.dim or "all")
    x = np.zeros(1) if varied.name is None else np.asarray(values[varied.name].values, float)
    # Random points come in no order, and a line through them as they come would go back and forth.
    order = np.argsort(x)
    # Points differ in all of their columns; a line through them would suggest that only this column varies.
    style = "" if varied.dim == "point" else "-"
    for curve in curves:
        color = {"color": handles[curve.label].lines[0].get_color()} if curve.label in handles else {}
        # A single seed has a standard error of NaN: the point is drawn without a bar.
        errors = np.nan_to_num(curve.stderr[order])
        drawn = panel.errorbar(
            x[order], curve.mean[order], errors, ls=style, marker="o", ms=3, capsize=2, lw=1, **color
        )
        handles.setdefault(curve.label, drawn)
    # A range of more than a decade or so was most likely chosen evenly in the logarithm.
    if (x > 0).all() and x.max() >= 20 * x.min():
        panel.set_xscale("log")
    panel.set_xlabel(varied.name or "")
    panel.set_ylabel(metric)
    notes = ["at " + ", ".join(f"{dim} {label}" for dim, label in at.items())] if at else []
    if lost:
        notes.append(f"{lost} runs not finite")
    return notes


def _curves(values: xr.DataArray, dim: str) -> tuple[list[_Curve], int]:
    """Returns the lines along a dimension, and how many values they leave out because they are not finite."""
    dims = [str(each) for each in values.dims]
    seed = dims.index("seed")
    swept = [each for each in dims[:seed] if each not in (dim, "point", "all")]
    # The metric's own dimensions with text labels: final_values took the others at their last label.
    labelled = [each for each in dims[seed + 1 :] if each in values.coords]
    # More than two dimensions would give more lines than a reader can tell apart.
    lines = [each for each in swept + labelled if values.sizes[each] > 1][:2]

    kept = values.transpose(dim, "seed", *lines, ...).astype(float)
    kept = kept.mean([each for each in kept.dims if each not in (dim, "seed", *lines)])
    finite = finite_values(kept)
    kept = kept.where(finite)
    mean, count = kept.mean("seed"), finite.sum("seed")
    # A single seed has no standard error: NaN, in place of a division by zero.
    stderr = kept.std("seed", ddof=1) / np.sqrt(count.where(count > 1))

    curves = []
    texts = {line: label_texts(values, line) for line in lines}
    # Without a dimension for lines, this loop runs once, for the only line.
    for index in np.ndindex(*(values.sizes[line] for line in lines)):
        chosen = [(line, texts[line][i]) for line, i in zip(lines, index, strict=True)]
        label = ", ".join(text if line in labelled else f"{line}={text}" for line, text in chosen)
        curves.append(_Curve(label, mean.values[:, *index], stderr.values[:, *index]))
    return curves, int((~finite).sum())
