"""Inspects NumPy arrays of metrics: which types can be NaN, which runs are finite, and a digest of all numbers.

For NumPy, bfloat16 and its like are of kind "V", raw bytes that it cannot compute with. This module is the only one
that has to know it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["as_computable", "can_be_nan", "digest", "finite_runs", "is_foreign_float", "num_runs"]


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
        arrays: name to array; the order of the names does not count.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest({"x": np.zeros(2)}) == digest({"x": np.zeros(2, np.float32)})
        False
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
