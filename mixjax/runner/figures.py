"""A figure of any sweep: metrics against what was varied."""

from typing import Any

import numpy as np

from mixjax.runner.frames import columns, final, label_texts
from mixjax.runner.results import Results

__all__ = ["sweep_figure"]

_METRICS = 6


def sweep_figure(results: Results) -> Any:
    """Each metric's final value against the first axis, or each column of points: mean ± standard error over seeds.

    Args:
        results: run name -> metrics, of :func:`mixjax.sweep`. At most six metrics are drawn, a row of panels a run and
            column. One line a label along the metric's first dimension of text labels and along the second axis; what
            else there is, is averaged. Runs that are not finite are left out, and their number is in the panel's title.

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
    try:
        import matplotlib.pyplot as plt
    except ImportError as exc:
        raise ImportError("figures need matplotlib: pip install 'mixjax[experiments]'") from exc

    metrics = list(dict.fromkeys(name for dataset in results.values() for name in _numeric(dataset)))[:_METRICS]
    rows = [(run, *varied) for run, dataset in results.items() for varied in _varied(dataset)]
    size = 4.2 * len(metrics), 2.9 * len(rows) + 0.6
    figure, axes = plt.subplots(len(rows), len(metrics), figsize=size, squeeze=False, layout="constrained")
    handles = {}
    for panels, (run, dim, name) in zip(axes, rows, strict=True):
        for panel, metric in zip(panels, metrics, strict=True):
            if metric in results[run]:
                title = _draw(panel, results[run][metric], dim, name, handles)
                panel.set_title("\n".join(filter(None, [run if len(results) > 1 else "", title])), fontsize=9)
            else:
                panel.set_axis_off()
    figure.suptitle("mean ± standard error over seeds", fontsize=10)
    if len(handles) > 1:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _numeric(dataset):
    return [name for name, values in dataset.data_vars.items() if values.dtype.kind in "fiub"]


def _varied(dataset):
    """(dimension, coordinate) of the first numeric axis, or of all numeric columns of points; or nothing varies."""
    dims = next(iter(dataset.data_vars.values())).dims
    swept = [dim for dim in dims[: dims.index("seed")] if dim != "point"]
    points = columns(dataset, "point") if "point" in dataset.dims else []
    varied = [("point", name) for name in points] or [(dim, dim) for dim in swept]
    numeric = [(dim, name) for dim, name in varied if dataset[name].dtype.kind not in "OUT"]
    return (numeric if points else numeric[:1]) or [(None, None)]


def _draw(panel, values, dim, name, handles):
    """One panel; returns what its title has to say."""
    unit = values.attrs.get("units", "")
    metric = f"{values.name} ({unit})" if unit else str(values.name)
    values, at = final(values)
    swept = values.dims[: values.dims.index("seed")]
    if dim is None:
        values, dim = values.expand_dims("all"), "all"
    labelled = [d for d in values.dims[values.dims.index("seed") + 1 :] if d in values.coords]
    lines = [d for d in [*(d for d in swept if d != dim and d != "point"), *labelled] if values.sizes[d] > 1][:2]
    kept = values.transpose(dim, "seed", *lines, ...).astype(float)
    kept = kept.mean([d for d in kept.dims if d not in (dim, "seed", *lines)])
    finite = np.isfinite(kept)
    kept = kept.where(finite)
    mean, count = kept.mean("seed"), finite.sum("seed")
    stderr = kept.std("seed", ddof=1) / np.sqrt(count.where(count > 1))
    x = np.asarray(values[name].values if name else np.zeros(1), float)
    order = np.argsort(x)
    texts = [label_texts(values, line) for line in lines]
    for index in np.ndindex(*(values.sizes[line] for line in lines)):
        label = ", ".join(
            text[i] if line in labelled else f"{line}={text[i]}"
            for line, text, i in zip(lines, texts, index, strict=True)
        )
        style = {"color": handles[label].lines[0].get_color()} if label in handles else {}
        y, error = (part.values[(slice(None), *index)][order] for part in (mean, stderr))
        line = "" if dim == "point" else "-"
        drawn = panel.errorbar(x[order], y, np.nan_to_num(error), ls=line, marker="o", ms=3, capsize=2, lw=1, **style)
        handles.setdefault(label, drawn)
    if (x > 0).all() and x.max() >= 20 * x.min():
        panel.set_xscale("log")
    panel.set_xlabel(name or "")
    panel.set_ylabel(metric)
    said = [f"{where} {label}" for where, label in at.items()]
    lost = int((~finite).sum())
    return "; ".join([*(["at " + ", ".join(said)] if said else []), *([f"{lost} runs not finite"] if lost else [])])
