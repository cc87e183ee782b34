"""Reads the rows of a batch from the data sets of its domains."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixjax.live.datasets import is_arrays, map_leaves

__all__ = ["read_batch"]


# In smaller groups, what grain does once a group takes longer than it saves.
_GROUP = 8


def read_batch(
    datasets: Sequence[Any], domain_ids: NDArray[np.int32], rows: NDArray[np.int64], names: Sequence[str] | None = None
) -> Any:
    """Reads the rows of a batch and stacks them.

    Args:
        datasets: one data set a domain: an array (also a memory map), a tree of arrays of one length, or anything with
            ``len`` and ``[]``, such as a ``grain.MapDataset``. Trees are dictionaries and tuples. A data set that has
            ``read_rows``, such as :class:`mixjax.live.PackedRows`, reads the rows of a batch in one call.
        domain_ids: ``[B]``, in ascending order.
        rows: ``[B]``.
        names: the domains as errors call them; None calls them by number.

    Returns:
        A tree like one row, whose leaves have a leading axis ``[B]``. Rows of ``bytes`` become an object array.

    Raises:
        ValueError: rows of different domains do not have one structure, one shape and one type.
        Exception: what a data set raises, with a note that names the domain.
    """
    starts = np.flatnonzero(np.diff(domain_ids, prepend=-1)).tolist()
    labels: Sequence[Any] = names or range(len(datasets))
    segments = [
        _Segment(labels[domain], datasets[domain], rows[start:stop])
        for domain, start, stop in zip(domain_ids[starts].tolist(), starts, [*starts[1:], rows.size], strict=True)
    ]
    # Neighbours of one kind are read into one array, which copies each row once.
    parts = []
    for read, neighbours in itertools.groupby(segments, key=_reader_of):
        parts += read(list(neighbours))
    return _merged(_join, parts, segments)


class _Segment(NamedTuple):
    """Holds the rows of a batch that are of one domain."""

    label: str | int
    dataset: Any
    rows: NDArray[np.int64]


def _reader_of(segment: _Segment) -> Callable[[list[_Segment]], list[Any]]:
    if is_arrays(segment.dataset):
        return _gather
    return _call_each if hasattr(segment.dataset, "read_rows") else _stack


def _call_each(segments: list[_Segment]) -> list[Any]:
    """Reads rows of data sets that stack them themselves."""
    parts = []
    for segment in segments:
        try:
            parts.append(segment.dataset.read_rows(segment.rows))
        except Exception as error:
            _note(error, segment.label, "a group of examples")
            raise
    return parts


def _note(error: Exception, label: Any, which: str) -> None:
    """Notes on the error of a data set which domain it was."""
    if isinstance(error, StopIteration):
        # It would end the training loop as if the data were at an end.
        raise RuntimeError(f"StopIteration was raised while {which} of domain {label!r} was read.") from error
    error.add_note(f"This was raised while {which} of domain {label!r} was read for a live mix.")


def _gather(segments: list[_Segment]) -> list[Any]:
    """Reads rows of domains that are arrays, into one array."""
    num_rows = sum(segment.rows.size for segment in segments)

    def read(*arrays):
        shapes = {array.shape[1:] for array in arrays}
        if len(shapes) > 1:
            raise ValueError(f"shapes {_listed(shapes)}.")
        types = {array.dtype for array in arrays}
        _check_types(types)
        # One type for all byte orders: the machine's.
        out = np.empty((num_rows, *shapes.pop()), np.result_type(*types))
        start = 0
        for array, segment in zip(arrays, segments, strict=True):
            stop = start + segment.rows.size
            _take(array, segment.rows, out[start:stop])
            start = stop
        return out

    return [_merged(read, [segment.dataset for segment in segments], segments)]


def _take(array, rows, out):
    flags = array.flags
    # ``take`` would first copy the whole of an array that is not contiguous, such as windows that overlap.
    if flags.c_contiguous and flags.aligned and array.dtype == out.dtype:
        # Nothing is clipped, since the plan's rows are below the size. The other modes copy the rows once more.
        array.take(rows, axis=0, out=out, mode="clip")
    else:
        out[...] = array[rows]


def _stack(segments: list[_Segment]) -> list[Any]:
    """Reads rows of all other domains, one by one or by groups, and stacks them."""
    items = [_items(segment) for segment in segments]
    try:
        return [_merged(_stacked, list(itertools.chain(*items)), segments)]
    except ValueError:
        # The rows of one domain may differ, or those of two. A domain that is at fault alone is named.
        for segment, rows in zip(segments, items, strict=True):
            _merged(_stacked, rows, [segment])
        raise


def _items(segment):
    rows = segment.rows.tolist()
    # Reading by groups is private in grain. It saves time in each ``.map``, and sources may read the rows at once.
    read_group = getattr(segment.dataset, "_getitems", None)
    row = None
    try:
        if read_group is None or len(rows) < _GROUP:
            items = []
            for row in rows:
                items.append(segment.dataset[row])
        else:
            items = list(read_group(rows))
    except Exception as error:
        _note(error, segment.label, "a group of examples" if row is None else f"example {row}")
        raise
    missing = [row for row, item in zip(rows, items, strict=True) if item is None]
    if missing:
        raise ValueError(
            f"domain {segment.label!r} has no example {missing[0]}, only None: a grain.MapDataset that is filtered "
            "keeps its length, so filter before the data set is made."
        )
    return items


def _merged(function, parts, segments):
    """Applies a function to the leaves of parts of a batch; says whose they are where they are not alike."""
    try:
        return map_leaves(function, *parts)
    except (ValueError, TypeError) as error:
        labels = [segment.label for segment in segments]
        whose = f"domain {labels[0]!r}" if len(labels) == 1 else f"the domains {labels}"
        raise ValueError(f"rows of {whose} cannot be stacked into one batch: {error}") from error


def _stacked(*leaves):
    _check_types({getattr(leaf, "dtype", None) or type(leaf) for leaf in leaves})
    if type(leaves[0]) is bytes:
        # NumPy's own type of bytes drops zeros at the end, and serialised examples may end with some.
        rows = np.empty(len(leaves), object)
        rows[:] = leaves
        return rows
    try:
        return np.stack(leaves)
    except ValueError:
        raise ValueError(f"shapes {_listed({np.shape(leaf) for leaf in leaves})}.") from None


def _join(first, *others):
    # A batch of one kind of data sets is passed on without a copy.
    if not others:
        return first
    _check_types({part.dtype for part in (first, *others)})
    try:
        return np.concatenate([first, *others])
    except ValueError:
        raise ValueError(f"shapes {_listed({part.shape[1:] for part in (first, *others)})}.") from None


def _check_types(types):
    """Raises a ValueError where numbers of several types would be promoted, in some batches and not in others."""
    if len(types) == 1:
        return
    # Texts of several lengths are of several types too.
    names = {np.dtype(each).name if np.dtype(each).kind not in "SU" else "text" for each in types}
    if len(names) > 1:
        raise ValueError(f"types {_listed(names)}; convert the rows, for instance in a data set's .map.")


def _listed(shapes):
    return ", ".join(map(str, sorted(shapes)))
