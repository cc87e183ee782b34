"""Checks the arguments that the JAX and the NumPy sampler share, and holds the limits that both keep to.

This module does not load JAX, so that the NumPy sampler can be used where nothing else needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from mixjax.numbers import check_choice, check_positive, check_range, is_concrete
from mixjax.samplers.scored.types import ImportanceKind

if TYPE_CHECKING:
    from jax.typing import ArrayLike

__all__ = [
    "LARGEST",
    "LARGEST_BATCH",
    "LARGEST_LOG_WEIGHT",
    "LEAST_PRIOR",
    "as_indices",
    "check_batch",
    "check_batch_size",
    "check_extension",
    "check_fixed",
    "check_growing",
    "check_insertion",
    "check_kind",
    "check_removal",
    "check_settings",
    "check_values",
]

# Arguments of type Any below are array-likes of JAX or of NumPy. NumPy's may be lists.

LARGEST = 1e30
"""Largest magnitude of a stored value, of a heat and of a log-ratio: finite in float32, and so are differences."""

LARGEST_LOG_WEIGHT = 80.0
"""Largest log of an importance weight of kind ``"tree"``: exp(80) is within float32."""

LARGEST_BATCH = 2**24
"""Largest batch of an update: positions in the batch are kept as float32 for a moment, exact up to here."""

LEAST_PRIOR = float(np.finfo(np.float32).tiny)
"""Least positive weight of an example in the prior: devices may take anything smaller for 0."""


def check_settings(
    n: int,
    *,
    prior: Any,
    decay: ArrayLike,
    floor: ArrayLike | None,
    clip: tuple[ArrayLike, ArrayLike],
    fanout: int,
) -> None:
    """Raises a ValueError where an argument that every example sampler has is out of range."""
    if n < 1 or fanout < 2:
        raise ValueError(f"need n >= 1 and fanout >= 2, got {n} and {fanout}.")
    check_range("decay", decay, 0.0, 1.0)
    # A floor of None is not one of 0: with None, draws need not look at the prior's sums. A floor may also be traced.
    if floor is not None:
        check_range("floor", floor, 0.0, 1.0)
    for bound in clip:
        check_positive("clip", bound)
    low, high = clip
    if is_concrete(low) and is_concrete(high) and not np.all(np.asarray(low) <= np.asarray(high)):
        raise ValueError(f"clip must be a lowest and a highest weight, got {clip}.")
    if prior is not None and np.shape(prior) != (n,):
        raise ValueError(f"prior must have shape {(n,)}, got {np.shape(prior)}.")


def check_values(n: int, values: Any, growing: bool = False) -> None:
    """Raises a ValueError where initial values have another shape, or are concrete and none of them is finite.

    Args:
        n: number of examples.
        values: a scalar, or ``[n]``.
        growing: whether there may be fewer of them, or none.
    """
    if growing and np.ndim(values) == 1 and np.size(values) <= n:
        return
    if np.shape(values) not in ((), (n,)):
        raise ValueError(f"initial values must be a scalar or have shape {(n,)}, got {np.shape(values)}.")
    # One finite value is enough: the others count as the largest finite one.
    if is_concrete(values) and not np.isfinite(np.asarray(values, np.float32)).any():
        raise ValueError("initial values must be finite, but not one of them is.")


def check_batch_size(batch_size: int, n: int, replacement: bool) -> None:
    """Raises a ValueError for a batch of no examples, or of more than can be drawn without replacement."""
    largest = "inf" if replacement else n
    # A batch size is static, since it is a shape; so this check sees every call.
    if batch_size < 1 or not (replacement or batch_size <= n):
        raise ValueError(f"batch_size must be in [1, {largest}], got {batch_size}.")


def check_batch(indices: ArrayLike, values: ArrayLike) -> None:
    """Raises an error unless a batch's indices are integers, and they and its values vectors of one length up to 2^24.

    Raises:
        ValueError: other shapes.
        TypeError: indices that are not integers.
    """
    # Without this check, a loss that is already averaged over the batch would be broadcast silently.
    if np.ndim(indices) != 1 or np.shape(indices) != np.shape(values):
        raise ValueError(
            f"indices and values must be vectors of one length, got {np.shape(indices)} and {np.shape(values)}."
        )
    if np.shape(indices)[0] > LARGEST_BATCH:
        raise ValueError(f"a batch has at most {LARGEST_BATCH} examples, got {np.shape(indices)[0]}.")
    # Traced indices have a type as well, but are not arrays of NumPy. An empty list has no type of its own.
    dtype = getattr(indices, "dtype", None)
    if dtype is None:
        dtype = as_indices(indices).dtype
    if not np.issubdtype(dtype, np.integer):
        raise TypeError(f"indices must be integers, got {dtype}.")


def check_kind(kind: str) -> None:
    """Raises a ValueError for an unknown kind of importance weights."""
    check_choice("kind", kind, get_args(ImportanceKind))


def as_indices(indices: Any) -> np.ndarray:
    """Widens concrete indices of any integer type to NumPy's own.

    Raises:
        TypeError: floats or booleans.
    """
    array = np.asarray(indices)
    # An empty list has no type of its own.
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"indices must be integers, got {array.dtype}.")
    return array.astype(np.intp)


def check_extension(n: int, before: int, values: Any, axis_name: str | None = None) -> int:
    """Raises a ValueError where a state cannot be extended; returns the number of new examples.

    Args:
        n: number of examples afterwards.
        before: number of examples of the state.
        values: the new examples' values, a scalar for all, or one each.
        axis_name: mesh axis over which the examples are split.
    """
    _check_one_device("extend", axis_name)
    if before > n:
        raise ValueError(f"extend takes the state of at most {n} examples, got one of {before}.")
    if np.shape(values) not in ((), (n - before,)):
        raise ValueError(f"values must be a scalar or have shape {(n - before,)}, got {np.shape(values)}.")
    return n - before


def check_growing(growing: bool, prior: Any) -> None:
    """Raises a ValueError where a sampler of changing examples is given a prior of its own."""
    if growing and prior is not None:
        raise ValueError("a growing sampler takes no prior: give insert each example's.")


def check_fixed(name: str, growing: bool) -> None:
    """Raises a ValueError where a sampler of changing examples is to be made longer or shorter."""
    if growing:
        raise ValueError(f"{name} is for samplers of fixed examples: a growing one has insert.")


def check_insertion(growing: bool, indices: Any, values: Any, prior: Any) -> None:
    """Raises a ValueError where examples cannot be inserted: another kind of sampler, or arguments of other shapes."""
    if not growing:
        raise ValueError("insert needs a sampler that was made with growing=True.")
    if np.ndim(indices) != 1:
        raise ValueError(f"indices must be a vector, got shape {np.shape(indices)}.")
    for name, array in (("values", values), ("prior", prior)):
        if np.shape(array) not in ((), np.shape(indices)):
            raise ValueError(f"{name} must be a scalar or have shape {np.shape(indices)}, got {np.shape(array)}.")
    check_range("prior", prior, 0.0)


def check_removal(n: int, before: int, indices: Any, axis_name: str | None = None) -> np.ndarray:
    """Raises an error where examples cannot be removed; returns the indices of those that stay.

    Args:
        n: number of examples afterwards.
        before: number of examples of the state.
        indices: the examples to remove, concrete.
        axis_name: mesh axis over which the examples are split.
    """
    _check_one_device("remove", axis_name)
    # The sizes of arrays depend on them.
    if not is_concrete(indices):
        raise TypeError("remove needs indices that are not traced: call it outside jit.")
    removed = as_indices(indices)
    if removed.size and not (removed.min() >= 0 and removed.max() < before):
        raise ValueError(f"indices must be in [0, {before}), got {removed.min()} to {removed.max()}.")
    kept = np.setdiff1d(np.arange(before), removed)
    if kept.size != n:
        raise ValueError(f"remove leaves {kept.size} of {before} examples, and the sampler is for {n}.")
    return kept


def _check_one_device(name: str, axis_name: str | None) -> None:
    # Indices are counted device by device, so those of old examples would move.
    if axis_name is not None:
        raise ValueError(f"{name} is for samplers on one device, got axis_name={axis_name!r}.")
