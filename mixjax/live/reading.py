"""Reads the rows of a batch from the data sets of its domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_named", "check_alike", "read_batch", "sizes_of"]


def sizes_of(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, int]:
    """Returns the number of examples of each domain, by name: what :class:`mixjax.live.Plan` takes as ``sizes``.

    Args:
        datasets: the data sets, as :func:`mixjax.live.mix` takes them.

    Raises:
        ValueError: the arrays of one domain differ in length.
    """
    return {name: _length(name, dataset) for name, dataset in as_named(datasets).items()}


def as_named(datasets: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Returns data sets by name; those of a sequence are called "0", "1", ..."""
    return dict(datasets) if isinstance(datasets, Mapping) else {str(d): each for d, each in enumerate(datasets)}


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
        rows = _map(lambda array: f"{array.dtype}{list(array.shape[1:])}", dataset)
        first, expected = next(iter(seen.items()), (name, rows))
        if rows != expected:
            raise ValueError(f"rows of the domains {first!r} and {name!r} differ: {expected} and {rows}.")
        seen[name] = rows


def read_batch(datasets: Sequence[Any], domain_ids: NDArray[np.int32], rows: NDArray[np.int64]) -> Any:
    """Reads the rows of a batch and stacks them.

    Args:
        datasets: one data set a domain: an array (also a memory map), a tree of arrays of one length, or anything with
            ``len`` and ``[]``, such as a ``grain.MapDataset``. Trees are dictionaries and tuples. A data set that has
            ``read_rows``, such as :class:`mixjax.live.PackedRows`, reads the rows of a batch in one call.
        domain_ids: ``[B]``, in ascending order.
        rows: ``[B]``.

    Returns:
        A tree like one row, whose leaves have a leading axis ``[B]``.

    Raises:
        ValueError: rows of different domains do not have one structure, or one shape.
    """
    starts = np.flatnonzero(np.diff(domain_ids, prepend=-1))
    parts, names = [], []
    for start, stop in zip(starts, np.append(starts[1:], domain_ids.size), strict=True):
        domain = int(domain_ids[start])
        parts.append(_read(datasets[domain], rows[start:stop], domain))
        names.append(domain)
    first, *others = parts
    try:
        return _map(_join, first, *others)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"rows of the domains {names} cannot be stacked into one batch: {error}") from error


def _join(first, *others):
    # A batch of one domain is passed on without a copy.
    return np.concatenate([first, *others]) if others else first


def _read(dataset, rows, domain):
    if is_arrays(dataset):
        # A memory map is read in the order of the file, which disks and page caches prefer.
        order = np.argsort(rows)
        back = np.argsort(order)
        return _map(lambda array: np.asarray(array[rows[order]])[back], dataset)
    if hasattr(dataset, "read_rows"):
        return dataset.read_rows(rows)
    # Reading by groups is private in grain, and saves half of its time a row.
    read_group = getattr(dataset, "_getitems", None)
    items = read_group(rows.tolist()) if read_group else [dataset[row] for row in rows.tolist()]
    missing = [row for row, item in zip(rows.tolist(), items, strict=True) if item is None]
    if missing:
        raise ValueError(
            f"domain {domain} has no example {missing[0]}, only None: a grain.MapDataset that is filtered keeps its "
            "length, so filter before the data set is made."
        )
    try:
        return _map(lambda *leaves: np.stack(leaves), *items)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"rows of domain {domain} cannot be stacked into one batch: {error}") from error


def is_arrays(dataset: Any) -> bool:
    """Tells whether a data set is an array or a tree of arrays, which are read without a call per row."""
    if isinstance(dataset, dict):
        return bool(dataset) and all(map(is_arrays, dataset.values()))
    if isinstance(dataset, tuple):
        return bool(dataset) and all(map(is_arrays, dataset))
    return isinstance(dataset, np.ndarray)


def _length(name, dataset):
    if not is_arrays(dataset):
        try:
            return len(dataset)
        except TypeError:
            raise TypeError(f"the data set of domain {name!r} has no len(): {type(dataset).__name__}.") from None
    lengths: set[int] = set()
    _map(lambda array: lengths.add(len(array)), dataset)
    if len(lengths) > 1:
        raise ValueError(f"the arrays of domain {name!r} have different lengths: {sorted(lengths)}.")
    return lengths.pop()


def _map(function, tree, *others):
    """Applies a function to the leaves of trees of one structure: dictionaries, tuples, and all else as leaves."""
    for other in others:
        if type(other) is not type(tree) and isinstance(tree, (dict, tuple)):
            raise TypeError(f"{type(tree).__name__} and {type(other).__name__}.")
    if isinstance(tree, dict):
        for other in others:
            if other.keys() != tree.keys():
                raise KeyError(f"entries {sorted(tree)} and {sorted(other)}.")
        return {key: _map(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        parts = [_map(function, *leaves) for leaves in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree, *others)
