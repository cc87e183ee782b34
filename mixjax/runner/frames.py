"""Labelled arrays as tables: labels as text, final values, one row a value."""

from collections.abc import Iterable

import numpy as np

try:
    import pandas as pd
    import xarray as xr
except ImportError as exc:
    raise ImportError(f"mixjax.runner.frames needs {exc.name}: pip install 'mixjax[experiments]'") from exc

__all__ = ["columns", "final", "label_texts", "to_frame"]


def columns(values: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    """Coordinates along a dimension besides its own: the columns of `mixjax.sweep`'s `points`.

    Args:
        values: any array or data set.
        dim: a dimension of it.

    Returns:
        Their names, in order.

    Example:
        >>> values = xr.DataArray([0.0, 0.0], {"point": [0, 1], "rule": ("point", ["erma", "dro"])}, ("point",))
        >>> columns(values, "point")
        ['rule']
    """
    return [str(name) for name, coord in values.coords.items() if coord.dims == (dim,) and name != dim]


def final(values: xr.DataArray, keep: Iterable[str] = ()) -> tuple[xr.DataArray, dict[str, str]]:
    """The last value along a metric's own dimensions that count something, such as steps.

    Those are the dimensions behind "seed" whose labels are no text.

    Args:
        values: [*axes, "seed", *own]
        keep: dimensions that stay in any case.

    Returns:
        The values, and dimension -> the label taken.

    Example:
        >>> dims = {"seed": [0, 1], "method": ["sgd", "erma"], "step": [10, 20]}
        >>> values, at = final(xr.DataArray(np.zeros((2, 2, 2)), dims, tuple(dims)))
        >>> values.dims, at
        (('seed', 'method'), {'step': '20'})
    """
    own = values.dims[values.dims.index("seed") + 1 :]
    last = [d for d in own if d not in keep and not (d in values.coords and values[d].dtype.kind in "OUT")]
    at = {dim: label_texts(values, dim)[-1] for dim in last}
    return values.isel(dict.fromkeys(last, -1), drop=True), at


def label_texts(values: xr.DataArray | xr.Dataset, name: str) -> list[str]:
    """The labels along a dimension as text.

    Args:
        values: with the dimension.
        name: the dimension, or one of the columns along it. Columns are what `mixjax.sweep` calls `points`.

    Returns:
        One text a label, in order: that of the coordinate; positions where there is none; and for a dimension with
        columns, "column=value, ..." of all of them.

    Example:
        >>> label_texts(xr.DataArray([0.0, 0.0], {"gamma": [0.1, 1.0]}, ("gamma",)), "gamma")
        ['0.1', '1.0']
    """
    along = columns(values, name)
    if along:
        return [
            ", ".join(f"{column}={label_text(values[column].values[i])}" for column in along)
            for i in range(values.sizes[name])
        ]
    texts = [label_text(label) for label in values[name].values]
    if len(set(texts)) < len(np.unique(values[name].values)):
        return [str(label) for label in values[name].values]
    return texts


def label_text(label: object) -> str:
    """A label as text; numbers with at most six digits."""
    short = str(label)
    return f"{label:.6g}" if isinstance(label, (float, np.floating)) and len(short) > 8 else short


def to_frame(values: xr.DataArray, metric: str, *, joined: str | None = None) -> pd.DataFrame:
    """An array as a table of one row a value, labels as text, seeds as they are.

    Args:
        values: [..., "seed", ...]
        metric: name of the column of values.
        joined: a dimension with columns (see `columns`) that stays one column, of the texts of `label_texts`.

    Returns:
        The dimensions in order, but for one with columns these columns; then `metric`.

    Example:
        >>> values = xr.DataArray([[1.0, 2.0]], {"gamma": [0.1], "seed": [7, 8]}, ("gamma", "seed"))
        >>> to_frame(values, "loss").to_dict("list")
        {'gamma': ['0.1', '0.1'], 'seed': [7, 8], 'loss': [1.0, 2.0]}
    """
    positions = np.indices(values.shape).reshape(values.ndim, -1)
    frame = {}
    for dim, position in zip(values.dims, positions, strict=True):
        if dim == "seed":
            frame[dim] = values[dim].values[position]
        else:
            for name in (dim != joined and columns(values, dim)) or [dim]:
                frame[name] = np.array(label_texts(values, name), object)[position]
    return pd.DataFrame({**frame, metric: values.values.ravel()})
