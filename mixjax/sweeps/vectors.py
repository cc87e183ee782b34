"""Names the coordinates of hyperparameters that are vectors, and makes an index of them in a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

__all__ = ["indexed", "label_name", "own_dims", "texts"]


def own_dims(name: str, values: Sequence) -> list[str]:
    """Names the dimensions of a hyperparameter's values: none of numbers, ``"<name>_0"`` and so on of vectors.

    Args:
        name: the hyperparameter.
        values: as :func:`mixjax.sweeps.points.as_values` returns them, at least one.

    Returns:
        The names.

    Example:
        >>> own_dims("mixture", [[0.5, 0.5], [0.9, 0.1]]), own_dims("gamma", [0.1])
        (['mixture_0'], [])
    """
    return [f"{name}_{i}" for i in range(np.ndim(values[0]))]


def label_name(name: str) -> str:
    """Names the coordinate that has each vector of a hyperparameter as a text.

    Args:
        name: the hyperparameter.

    Returns:
        The name.
    """
    return f"{name}_label"


def texts(values: Sequence[Any]) -> list[str]:
    """Writes vectors as texts, from which the numbers can be read again.

    Args:
        values: vectors, as :func:`mixjax.sweeps.points.as_values` returns them.

    Returns:
        A text for each vector.

    Example:
        >>> texts([[0.5, 0.5], [0.9, 0.1]])
        ['[0.5, 0.5]', '[0.9, 0.1]']
    """
    return [str(value) for value in values]


def indexed(dataset: xarray.Dataset) -> xarray.Dataset:
    """Makes the texts of each axis of vectors an index, so that xarray selects and aligns by them.

    The numbers of the vectors have two dimensions or more, and cannot be an index.

    Args:
        dataset: the result of a sweep, as it was joined or read from a file.

    Returns:
        The dataset; the same one if no axis holds vectors.

    Example:
        >>> import xarray
        >>> coords = {"mixture": (("mixture", "mixture_0"), [[0.5, 0.5], [0.9, 0.1]])}
        >>> coords["mixture_label"] = ("mixture", ["[0.5, 0.5]", "[0.9, 0.1]"])
        >>> error = indexed(xarray.Dataset({"error": ("mixture", [1.0, 2.0])}, coords)).error
        >>> float(error.sel(mixture_label="[0.9, 0.1]"))
        2.0
    """
    for dim in map(str, dataset.dims):
        label = label_name(dim)
        is_vector = dim in dataset.coords and dataset.coords[dim].ndim > 1
        if is_vector and label in dataset.coords and label not in dataset.xindexes:
            dataset = dataset.set_xindex(label)
    return dataset
