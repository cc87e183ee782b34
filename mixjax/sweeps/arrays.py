"""NumPy arrays of metrics: which are numbers, and which runs are finite.

NumPy knows bfloat16 and its like as kind "V", raw bytes that it cannot compute with. Only this module says so.
"""

from collections.abc import Mapping

import numpy as np

__all__ = ["as_computable", "can_be_nan", "finite_runs", "is_foreign_float"]


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
        metrics: name to array ``[runs, ...]``; integers, booleans and texts count as finite.

    Returns:
        bool ``[runs]``.

    Example:
        >>> finite_runs({"loss": np.array([[1.0, 2.0], [1.0, np.nan]]), "step": np.array([1, 2])}).tolist()
        [True, False]
    """
    finite = [np.ones(len(array), bool) for array in metrics.values()]
    for array in metrics.values():
        if can_be_nan(array):
            finite.append(np.isfinite(as_computable(array)).reshape(len(array), -1).all(axis=1))
    return np.logical_and.reduce(finite)
