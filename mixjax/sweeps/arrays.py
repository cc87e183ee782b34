"""Inspects NumPy arrays of metrics: which types can be NaN, which runs are finite, and a digest of all numbers.

For NumPy, bfloat16 and its like are of kind "V", raw bytes that it cannot compute with. This module is the only one
that has to know it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Pieces",
    "as_computable",
    "can_be_nan",
    "digest",
    "finite_runs",
    "heading",
    "is_foreign_float",
    "num_runs",
    "raw_pieces",
]


class Pieces(NamedTuple):
    """Stands for a large array that is read piece by piece, so that no second copy of it is in memory.

    Args:
        shape: the shape of the whole array.
        dtype: its type.
        parts: returns arrays that are its entries along the first dimension, in order.

    Example:
        >>> rows = np.arange(6.0).reshape(3, 2)
        >>> pieces = Pieces(rows.shape, rows.dtype, lambda: iter([rows[:2], rows[2:]]))
        >>> digest({"x": pieces}) == digest({"x": rows})
        True
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Callable[[], Iterator[np.ndarray]]


def is_foreign_float(array: np.ndarray) -> bool:
    """Tells whether an array holds a float type that NumPy cannot compute with, such as bfloat16.

    Args:
        array: any array.

    Returns:
        True for those types.
    """
    return array.dtype.kind == "V"


def as_computable(array: np.ndarray) -> np.ndarray:
    """Returns an array that NumPy can compute with: bfloat16 and its like as float32, others as they are.

    Args:
        array: any array of numbers.

    Returns:
        An array of the same shape.
    """
    return array.astype(np.float32) if is_foreign_float(array) else array


def can_be_nan(array: np.ndarray) -> bool:
    """Tells whether an array's type can hold a NaN: a float or complex type, NumPy's own or foreign.

    Args:
        array: any array.

    Returns:
        True for those types, whatever the values.
    """
    return array.dtype.kind in "fc" or is_foreign_float(array)


def finite_runs(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tells which runs hold finite numbers only.

    Args:
        metrics: name to array ``[runs, ...]``, at least one; integers, booleans and texts count as finite.

    Returns:
        bool ``[runs]``.

    Example:
        >>> finite_runs({"loss": np.array([[1.0, 2.0], [1.0, np.nan]]), "step": np.array([1, 2])}).tolist()
        [True, False]
    """
    finite = np.ones(num_runs(metrics), bool)
    for array in metrics.values():
        if can_be_nan(array):
            finite &= np.isfinite(as_computable(array)).all(axis=tuple(range(1, array.ndim)))
    return finite


def num_runs(metrics: Mapping[str, np.ndarray]) -> int:
    """Counts the runs of a chunk.

    Args:
        metrics: name to array ``[runs, ...]``, at least one.

    Returns:
        The number of runs.
    """
    return len(next(iter(metrics.values())))


def digest(arrays: Mapping[str, Any]) -> str:
    """Computes one SHA-256 of some arrays, with their names, dtypes and shapes.

    Args:
        arrays: name to array, or to :class:`Pieces`; the order of the names does not count.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest({"x": np.zeros(2)}) == digest({"x": np.zeros(2, np.float32)})
        False
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(heading(name, arrays[name]))
        for piece in raw_pieces(arrays[name]):
            sha.update(piece)
    return sha.hexdigest()


def heading(name: str, array: Any) -> bytes:
    """Returns what a digest takes of an array before its numbers.

    Args:
        name: of the array.
        array: an array, or :class:`Pieces`.

    Returns:
        Name, type and shape.
    """
    array = array if isinstance(array, Pieces) else np.asarray(array)
    return f"{name} {array.dtype} {array.shape} ".encode()


def raw_pieces(array: Any) -> Iterator[memoryview]:
    """Yields the bytes of an array in C order, without a copy where the array lies in memory in this order.

    Args:
        array: an array, or :class:`Pieces`.

    Yields:
        Bytes, which together are the array's.
    """
    for part in array.parts() if isinstance(array, Pieces) else [array]:
        # As bytes, since a memoryview of bfloat16 and its like can be neither hashed nor written.
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
