"""Names the data sets of domains, and says how many examples they have and whether their rows are alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["as_named", "check_alike", "is_arrays", "map_leaves", "sizes_of"]


def sizes_of(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, int]:
    """Returns the number of examples of each domain, by name: what :class:`mixjax.live.Plan` takes as ``sizes``.

    Args:
        datasets: the data sets, as :func:`mixjax.live.mix` takes them.

    Returns:
        The sizes in the order of the data sets; those of a list are called "0", "1", ...

    Raises:
        ValueError: the arrays of one domain differ in length, or a data set is repeated without end.
        TypeError: ``datasets`` is neither a dictionary nor a list, or a data set has no ``len``, or is a dictionary of
            other things than NumPy arrays.

    Example:
        >>> import numpy as np
        >>> from mixjax.live import sizes_of
        >>> sizes_of({"web": np.zeros((30, 8)), "code": {"x": np.zeros(5), "y": np.zeros(5)}})
        {'web': 30, 'code': 5}
    """
    return {name: _length(name, dataset) for name, dataset in as_named(datasets).items()}


def as_named(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Returns data sets by name; those of a list or a tuple are called "0", "1", ...

    Raises:
        TypeError: anything else, such as a single data set, whose examples would be taken for data sets.
    """
    if isinstance(datasets, Mapping):
        return dict(datasets)
    if not isinstance(datasets, (list, tuple)):
        raise TypeError(
            f"datasets must be a dictionary or a list with one data set for each domain, got {type(datasets).__name__}."
        )
    return {str(d): each for d, each in enumerate(datasets)}


def check_alike(datasets: Mapping[str, Any]) -> None:
    """Raises a ValueError if the rows of two domains that are arrays have other types or shapes.

    A batch of one domain would then have another type than a batch of two. Rows of other data sets are not looked at.

    Args:
        datasets: data sets by name.

    Raises:
        ValueError: two domains differ; the error names them and what their rows are.
    """
    seen: dict[str, Any] = {}
    for name, dataset in datasets.items():
        if not is_arrays(dataset):
            continue
        rows = map_leaves(lambda array: f"{array.dtype}{list(array.shape[1:])}", dataset)
        first, expected = next(iter(seen.items()), (name, rows))
        if rows != expected:
            raise ValueError(
                f"rows of the domains {first!r} and {name!r} differ: {expected} and {rows}. A batch stacks rows of all "
                "domains, which need the same entries, shapes and types."
            )
        seen[name] = rows


def is_arrays(dataset: Any) -> bool:
    """Tells whether a data set is an array or a tree of arrays, which are read without a call per row."""
    if isinstance(dataset, np.ndarray):
        return True
    if isinstance(dataset, dict):
        return bool(dataset) and all(map(is_arrays, dataset.values()))
    return isinstance(dataset, tuple) and bool(dataset) and all(map(is_arrays, dataset))


def _length(name, dataset):
    if not is_arrays(dataset):
        if isinstance(dataset, dict) and 0 not in dataset:
            kinds = sorted({type(each).__name__ for each in dataset.values()})
            raise TypeError(
                f"the data set of domain {name!r} is a dictionary, which has to hold NumPy arrays, got {kinds}: "
                "convert them by np.asarray."
            )
        try:
            length = len(dataset)
        except TypeError:
            raise TypeError(
                f"the data set of domain {name!r} has no len(): {type(dataset).__name__}. Rows are read by their "
                "number, as from a grain.MapDataset or an array."
            ) from None
        # grain gives a data set without end this length.
        if length == sys.maxsize:
            raise ValueError(
                f"the data set of domain {name!r} is repeated without end: leave out .repeat(), the plan itself begins "
                "a domain anew."
            )
        return length
    lengths = {len(array) for array in _arrays_in(dataset)}
    if len(lengths) > 1:
        raise ValueError(f"the arrays of domain {name!r} have different lengths: {sorted(lengths)}.")
    return lengths.pop()


def _arrays_in(dataset) -> list[np.ndarray]:
    """Lists the arrays of a tree of arrays."""
    if isinstance(dataset, np.ndarray):
        return [dataset]
    parts = dataset.values() if isinstance(dataset, dict) else dataset
    return [array for part in parts for array in _arrays_in(part)]


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Applies a function to the leaves of trees of one structure.

    Dictionaries and tuples are inner nodes, all else is a leaf. JAX has the same for its own trees; this package loads
    no JAX.

    Args:
        function: takes a leaf of each tree.
        tree: the first tree.
        others: trees of the same structure.

    Returns:
        A tree of what the function returned.

    Raises:
        ValueError: the entries of two dictionaries differ, or the lengths of two tuples.
        TypeError: a dictionary or a tuple stands where another tree has another type.
    """
    kinds = {type(each) for each in (tree, *others)}
    if len(kinds) > 1 and any(issubclass(kind, (dict, tuple)) for kind in kinds):
        raise TypeError(f"types {sorted(kind.__name__ for kind in kinds)}.")
    if isinstance(tree, dict):
        for other in others:
            if other.keys() != tree.keys():
                raise ValueError(f"entries {sorted(tree)} and {sorted(other)}.")
        return {key: map_leaves(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        parts = [map_leaves(function, *leaves) for leaves in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)
