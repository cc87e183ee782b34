"""Checks hyperparameters that are numbers or names, without loading JAX: a data loader's process needs none.

:mod:`mixjax.checks` has these functions too, beside those that check arrays.
"""

from __future__ import annotations

import contextlib
import math
import operator
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jax.typing import ArrayLike

__all__ = [
    "as_reals",
    "as_size",
    "check_choice",
    "check_integer",
    "check_non_negative",
    "check_positive",
    "check_range",
    "is_concrete",
]


def is_concrete(value: Any) -> bool:
    """Tells whether ``value`` holds numbers: no leaf of it is traced by jit, vmap, scan or grad.

    Args:
        value: a number, an array or a pytree of them.

    Returns:
        True where every leaf can be looked at in Python.
    """
    # Where nobody has loaded JAX nothing is traced, and this check must not be what loads it.
    if "jax" not in sys.modules:
        return True
    import jax.core

    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def as_size(name: str, value: Any) -> int:
    """Turns a number of domains, examples or draws into a Python integer, which no sum wraps.

    Such a number often comes from narrow ids, and NumPy keeps their type: ``ids.max() + 1`` of uint8 ids is a uint8,
    and one more domain, for padding, makes 0 of 255.

    Args:
        name: the argument as the error calls it.
        value: an integer of Python, or a scalar of NumPy or JAX of any integer type.

    Returns:
        The same number.

    Raises:
        TypeError: another type, such as a bool, or a traced number.

    Example:
        >>> import numpy as np
        >>> as_size("num_domains", np.uint8(255)) + 1
        256
    """
    try:
        # Python takes True for 1, but whoever writes it means another argument.
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        what = "a traced number" if not is_concrete(value) else repr(value)
        raise TypeError(f"{name} must be an integer that is known outside jit, got {what}.") from None


def as_reals(name: str, value: Any) -> np.ndarray:
    """Turns numbers into float64; text that looks like a number is none.

    Args:
        name: the argument as the error calls it.
        value: a real number or an array of them, concrete.

    Returns:
        float64, of the same shape.

    Raises:
        TypeError: text, None, complex numbers, or other things that are no real numbers.

    Example:
        >>> as_reals("max_share", "0.5")
        Traceback (most recent call last):
            ...
        TypeError: max_share must be a real number or an array of them, got '0.5'.
    """
    return _as_real(name, value).astype(np.float64)


def _as_real(name: str, value: Any) -> np.ndarray:
    """Returns a concrete hyperparameter as an array that can be compared with numbers.

    Raises:
        TypeError: text, None, complex numbers, or other things that are no real numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        # Rows of different lengths are no array.
        array = np.empty(1, "U1")
    if array.dtype.kind in "biuf":
        return array
    # Text would pass through float() where it looks like a number, and None would become NaN.
    if array.dtype.kind in "OV" and not any(entry is None or isinstance(entry, (str, bytes)) for entry in array.flat):
        # Fractions and integers beyond 64 bits are objects to NumPy, and bfloat16 is of its kind "void".
        with contextlib.suppress(TypeError, ValueError):
            return array.astype(np.float64)
    raise TypeError(f"{name} must be a real number or an array of them, got {value!r}.")


def check_range(name: str, value: ArrayLike, low: float, high: float = math.inf) -> None:
    """Raises a ValueError if a concrete hyperparameter is not finite or leaves ``[low, high]``.

    Args:
        name: the argument as the error calls it.
        value: a scalar or an array; a traced one passes.
        low: the least value allowed.
        high: the largest value allowed.

    Raises:
        ValueError: an entry is out of range, infinite or NaN.
        TypeError: something else than real numbers.

    Example:
        >>> check_range("gamma", 2.0, 0.0, 1.0)
        Traceback (most recent call last):
            ...
        ValueError: gamma must be in [0, 1], got 2.0.
    """
    # A traced value has no number yet; the rules' own guards have to hold for it.
    if is_concrete(value):
        numbers = _as_real(name, value)
        if not (np.isfinite(numbers).all() and (numbers >= low).all() and (numbers <= high).all()):
            upper = f"{high:g}]" if math.isfinite(high) else "inf)"
            raise ValueError(f"{name} must be in [{low:g}, {upper}, got {value}.")


def check_integer(name: str, value: ArrayLike, low: int) -> None:
    """Raises a ValueError if a concrete hyperparameter is not an integer of at least ``low``.

    Args:
        name: the argument as the error calls it.
        value: a scalar or an array; a traced one passes.
        low: the least value allowed.

    Raises:
        ValueError: another type, or an entry below ``low``.
    """
    if is_concrete(value):
        numbers = np.asarray(value)
        if not (np.issubdtype(numbers.dtype, np.integer) and np.all(numbers >= low)):
            raise ValueError(f"{name} must be an integer of at least {low}, got {value}.")


def check_positive(name: str, value: ArrayLike) -> None:
    """Raises a ValueError if a concrete hyperparameter is not above zero; ``inf`` passes.

    Args:
        name: the argument as the error calls it.
        value: a scalar or an array; a traced one passes.

    Raises:
        ValueError: an entry is zero, negative or NaN.
        TypeError: something else than real numbers.
    """
    if is_concrete(value) and not bool(np.all(_as_real(name, value) > 0)):
        raise ValueError(f"{name} must be positive, got {value}.")


def check_non_negative(name: str, value: ArrayLike) -> None:
    """Raises a ValueError if a concrete hyperparameter is negative; ``inf`` passes, unlike in :func:`check_range`.

    Args:
        name: the argument as the error calls it.
        value: a scalar or an array; a traced one passes.

    Raises:
        ValueError: an entry is negative or NaN.
        TypeError: something else than real numbers.
    """
    if is_concrete(value) and not bool(np.all(_as_real(name, value) >= 0)):
        raise ValueError(f"{name} must be in [0, inf], got {value}.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises a ValueError if ``value`` is none of a closed set of names.

    Args:
        name: the argument as the error calls it.
        value: the name that was given.
        choices: the names allowed.

    Raises:
        ValueError: another name; the error lists those allowed.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")
