"""Turns metrics with named dimensions into what tables and figures show: labels as text, final values, rows."""

from collections.abc import Collection
from typing import Any

import numpy as np

from mixjax.checks import requires
from mixjax.sweeps.arrays import as_computable, can_be_nan
from mixjax.sweeps.vectors import label_name

with requires("experiments", "mixjax.runner.frames"):
    import pandas as pd
    import xarray as xr

__all__ = [
    "column_names",
    "final_values",
    "finite_values",
    "holds_numbers",
    "holds_text",
    "label_text",
    "label_texts",
    "long_frame",
    "with_vector_texts",
]


def holds_numbers(values: xr.DataArray) -> bool:
    """Tells whether an array holds real numbers or booleans, which can be averaged and drawn.

    Args:
        values: any array.

    Returns:
        False for texts, complex numbers, types that NumPy cannot compute with, and arrays without a value.
    """
    return values.dtype.kind in "biuf" and values.size > 0


def holds_text(values: xr.DataArray | np.ndarray) -> bool:
    """Tells whether an array holds text, such as the labels of methods.

    Args:
        values: any array.

    Returns:
        True for NumPy's strings and for objects.
    """
    return values.dtype.kind in "OUT"


def finite_values(values: xr.DataArray) -> xr.DataArray:
    """Tells which values are finite.

    Args:
        values: any array; integers, booleans and texts count as finite.

    Returns:
        bool, with the same dimensions and coordinates.

    Example:
        >>> finite_values(xr.DataArray([1.0, float("inf")], dims="seed")).values.tolist()
        [True, False]
    """
    # NumPy's isfinite knows neither texts nor bfloat16.
    array = values.values
    finite = np.isfinite(as_computable(array)) if can_be_nan(array) else np.ones(array.shape, bool)
    return values.copy(data=finite)


def column_names(values: xr.DataArray | xr.Dataset, dim: str) -> list[str]:
    """Names the coordinates that lie along a dimension, except the one of its own name.

    Along the dimension "point" of a sweep, these are the columns of the sweep's ``points``.

    Args:
        values: any array or data set.
        dim: a dimension of it.

    Returns:
        Their names, in order.

    Example:
        >>> values = xr.DataArray([0.0, 0.0], {"point": [0, 1], "rule": ("point", ["erma", "dro"])}, ("point",))
        >>> column_names(values, "point")
        ['rule']
    """
    # Items of `coords` are DataArrays, each with coordinates of its own; variables are enough, and cheap.
    return [str(name) for name, coord in values.coords.variables.items() if coord.dims == (dim,) and name != dim]


def final_values(values: xr.DataArray, keep: Collection[str] = ()) -> tuple[xr.DataArray, dict[str, str]]:
    """Takes the last value along a metric's own dimensions that count something, such as steps.

    These are the dimensions after "seed" that have no text labels.

    Args:
        values: ``[*axes, "seed", *own]``.
        keep: dimensions that stay in any case.

    Returns:
        The values without those dimensions, and a dict: dimension -> the label that was taken.

    Example:
        >>> dims = {"seed": [0, 1], "method": ["sgd", "erma"], "step": [10, 20]}
        >>> values, at = final_values(xr.DataArray(np.zeros((2, 2, 2)), dims, tuple(dims)))
        >>> values.dims, at
        (('seed', 'method'), {'step': '20'})
    """
    own = [str(dim) for dim in values.dims[values.dims.index("seed") + 1 :]]
    counting = [dim for dim in own if dim not in keep and not (dim in values.coords and holds_text(values[dim]))]
    at = {dim: label_texts(values, dim)[-1] for dim in counting}
    return values.isel(dict.fromkeys(counting, -1), drop=True), at


def with_vector_texts(dataset: xr.Dataset) -> xr.Dataset:
    """Replaces the coordinates of hyperparameters that are vectors by their texts, which serve as labels.

    Args:
        dataset: as :func:`mixjax.sweep` returns it: the coordinate "mixture" holds the numbers of the vectors, and
            "mixture_label" their texts.

    Returns:
        The dataset, in which "mixture" holds the texts.

    Example:
        >>> coords = {"mixture": (("point", "mixture_0"), [[0.5, 0.5]]), "mixture_label": ("point", ["[0.5, 0.5]"])}
        >>> with_vector_texts(xr.Dataset({"error": ("point", [0.1])}, coords)).error.mixture.values.tolist()
        ['[0.5, 0.5]']
    """
    vectors = [
        str(name)
        for name, coord in dataset.coords.items()
        if coord.ndim > 1 and label_name(str(name)) in dataset.coords
    ]
    for name in vectors:
        texts = dataset.coords[label_name(name)]
        dataset = dataset.drop_vars([name, label_name(name)]).assign_coords({name: (texts.dims, texts.values)})
    return dataset


def label_texts(values: xr.DataArray | xr.Dataset, name: str) -> list[str]:
    """Writes the labels along a dimension as text, with more than six digits only where six make two labels look alike.

    Args:
        values: any array or data set that has the dimension.
        name: the dimension, or one of the columns along it (see :func:`column_names`).

    Returns:
        One text for each label, in order. A dimension with columns gives "column=value, ..." of all its columns, a
        dimension without a coordinate gives positions, and any other dimension gives the values of its coordinate.

    Example:
        >>> label_texts(xr.DataArray([0.0, 0.0], {"gamma": [0.1, 1.0]}, ("gamma",)), "gamma")
        ['0.1', '1.0']
    """
    along = column_names(values, name)
    if along:
        return [
            ", ".join(f"{column}={label_text(values[column].values[i])}" for column in along)
            for i in range(values.sizes[name])
        ]
    labels = values[name].values
    texts = [label_text(label) for label in labels]
    # Six digits are easy to read, but two labels must not look alike.
    if len(set(texts)) < len(np.unique(labels)):
        return [str(label) for label in labels]
    return texts


def label_text(label: object) -> str:
    """Writes a label as text, a number with at most six digits.

    Args:
        label: a number or a string.

    Returns:
        The text.

    Example:
        >>> label_text(1 / 3), label_text("erma")
        ('0.333333', 'erma')
    """
    text = str(label)
    # Eight characters hold a sign, a point and six digits. A shorter text stays as it is, such as "1.0", not "1".
    if isinstance(label, (float, np.floating)) and len(text) > 8:
        return f"{label:.6g}"
    return text


def long_frame(values: xr.DataArray, metric: str, *, joined: str | None = None) -> pd.DataFrame:
    """Lays an array out as a long table: one row for each value, with labels as text and seeds as numbers.

    Args:
        values: ``[..., "seed", ...]``.
        metric: name of the column of values.
        joined: a dimension with columns (see :func:`column_names`). It becomes a single column of texts that join the
            values of all its columns (see :func:`label_texts`).

    Returns:
        A table with one column for each dimension, in order. A dimension with columns gives one column for each of
        these instead. The last column is ``metric``.

    Example:
        >>> values = xr.DataArray([[1.0, 2.0]], {"gamma": [0.1], "seed": [7, 8]}, ("gamma", "seed"))
        >>> long_frame(values, "loss").to_dict("list")
        {'gamma': ['0.1', '0.1'], 'seed': [7, 8], 'loss': [1.0, 2.0]}
    """
    positions = np.indices(values.shape).reshape(values.ndim, -1)
    frame: dict[str, Any] = {}
    for dim, position in zip(map(str, values.dims), positions, strict=True):
        if dim == "seed":
            frame[dim] = values[dim].values[position]
            continue
        names = [] if dim == joined else column_names(values, dim)
        for name in names or [dim]:
            # Objects share one string. NumPy's own strings would copy it for every value, padded to the longest.
            frame[name] = np.array(label_texts(values, name), object)[position]
    return pd.DataFrame({**frame, metric: values.values.ravel()})
