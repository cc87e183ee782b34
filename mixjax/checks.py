"""Checks arguments and words their errors: each names the argument, what it got and what it takes."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from mixjax.extras import install_command
from mixjax.numbers import (
    as_size,
    check_choice,
    check_integer,
    check_non_negative,
    check_positive,
    check_range,
    is_concrete,
)

__all__ = [
    "as_ids",
    "as_simplex",
    "as_size",
    "check_choice",
    "check_integer",
    "check_leading_axes",
    "check_non_negative",
    "check_positive",
    "check_range",
    "check_real",
    "check_same_shape",
    "check_shape",
    "closest",
    "is_concrete",
    "nearest",
    "requires",
]


def check_shape(name: str, value: ArrayLike, shape: Sequence[int | str], meaning: str = "") -> None:
    """Raises a ValueError if an array does not have the shape that is asked for.

    Args:
        name: the argument as the error calls it.
        value: the array, or anything that JAX takes for one.
        shape: one entry per axis: an integer is the size, a string names an axis of any size.
        meaning: what one entry of the array stands for, as the error says it.

    Raises:
        ValueError: another number of axes, or another size.

    Example:
        >>> check_shape("prior", [[0.5, 0.5]], ("D",), "one entry per domain")
        Traceback (most recent call last):
            ...
        ValueError: prior must be [D], one entry per domain, got shape (1, 2).
    """
    got = np.shape(value)
    expected = tuple(size if isinstance(size, int) else None for size in shape)
    try:
        chex.assert_shape(jax.ShapeDtypeStruct(got, jnp.float32), expected)
    except AssertionError:
        # Chex's own text calls the argument "input 0", which tells the caller too little.
        meaning = f", {meaning}" if meaning else ""
        raise ValueError(f"{name} must be {_shape_text(shape)}{meaning}, got shape {got}.") from None


def check_same_shape(shape: Sequence[str], **arrays: ArrayLike) -> None:
    """Raises a ValueError if arrays differ in shape or do not have the axes that are asked for.

    Args:
        shape: a name for each axis, such as ``("B",)``.
        **arrays: the arrays by the names of the arguments.

    Raises:
        ValueError: another number of axes, or shapes that differ.

    Example:
        >>> import numpy as np
        >>> check_same_shape(("B",), values=np.ones(3), domain_ids=np.ones(4))
        Traceback (most recent call last):
            ...
        ValueError: values and domain_ids must both be [B], got (3,) and (4,).
    """
    shapes = [np.shape(array) for array in arrays.values()]
    structs = [jax.ShapeDtypeStruct(got, jnp.float32) for got in shapes]
    try:
        chex.assert_rank(structs, len(shape))
        chex.assert_equal_shape(structs)
    except AssertionError:
        every = "both" if len(arrays) == 2 else "all"
        names, got = " and ".join(arrays), " and ".join(map(str, shapes))
        raise ValueError(f"{names} must {every} be {_shape_text(shape)}, got {got}.") from None


def check_leading_axes(name: str, value: ArrayLike, of: str, whole: ArrayLike) -> None:
    """Raises a ValueError if an array's axes are not one or more of the first axes of another.

    Args:
        name: the argument as the error calls it.
        value: the array, or anything that JAX takes for one.
        of: the other argument, as the error calls it.
        whole: the other array.

    Raises:
        ValueError: no axes, more axes than the other array has, or other sizes; or the other array is a scalar.

    Example:
        >>> import numpy as np
        >>> check_leading_axes("domain_ids", np.zeros(3, int), "losses", np.ones((4, 6)))
        Traceback (most recent call last):
            ...
        ValueError: domain_ids must have the leading axes of losses, of shape (4, 6), got shape (3,).
    """
    got, shape = np.shape(value), np.shape(whole)
    if not shape:
        raise ValueError(f"{of} must have at least one axis, got a scalar.")
    if not got or got != shape[: len(got)]:
        raise ValueError(f"{name} must have the leading axes of {of}, of shape {shape}, got shape {got}.")


def check_real(name: str, value: ArrayLike) -> None:
    """Raises a TypeError if an array is complex, since a cast to floats would drop its imaginary part.

    Args:
        name: the argument as the error calls it.
        value: the array, or anything that JAX takes for one.

    Raises:
        TypeError: a complex type.

    Example:
        >>> check_real("losses", [1.0 + 2.0j])
        Traceback (most recent call last):
            ...
        TypeError: losses must be real numbers, got complex128.
    """
    # NumPy would fetch an array of the device only to look at its type.
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        dtype = np.asarray(value).dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be real numbers, got {dtype}.")


def _shape_text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def as_ids(name: str, ids: ArrayLike) -> jax.Array:
    """Widens ids or indices of any integer type to int32, so that an id one beyond the last does not wrap.

    Args:
        name: the argument as the error calls it.
        ids: integers of any type and shape.

    Returns:
        int32, of the same shape. A number beyond int32 becomes the nearest one within. It stays outside ``[0, D)``,
        where it marks padding.

    Raises:
        TypeError: floats or booleans.

    Example:
        >>> import numpy as np
        >>> (as_ids("domain_ids", np.array([0, 255], np.uint8)) + 1).tolist()
        [1, 256]
    """
    array = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if isinstance(ids, list | tuple) and not array.size:
        # An empty list has no type of its own.
        array = array.astype(np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}.")
    # Before the cast, which would wrap 2^32 to 0, the first domain's id.
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if jnp.iinfo(array.dtype).max > high:
        array = array.clip(max(low, jnp.iinfo(array.dtype).min), high)
    return jnp.asarray(array, jnp.int32)


def as_simplex(name: str, values: ArrayLike, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normalises a non-negative vector to sum one, as strongly typed float32 ``[D]``.

    Args:
        name: the argument as the error messages call it.
        values: shape ``[D]``, finite, non-negative, not all zero. Entries below the smallest normal number of the dtype
            count as zero.
        dtype: another float type of the result.

    Returns:
        float32 ``[D]`` on the simplex.

    Raises:
        TypeError: something else than numbers.
        ValueError: a shape other than ``[D]`` with ``D >= 1``; or, where the values are concrete, a negative or
            non-finite entry or a sum of zero.
    """
    try:
        array = jnp.asarray(values, dtype)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be [D] numbers, one entry per domain, got {values!r}.") from None
    check_shape(name, array, ("D",), "one entry per domain")
    if array.size == 0:
        raise ValueError(f"{name} must have at least one entry, one per domain, got shape {array.shape}.")
    if is_concrete(values):
        numbers = np.asarray(values, array.dtype)
        if not (np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.max() >= np.finfo(array.dtype).tiny):
            raise ValueError(f"{name} must be finite, non-negative and not all zero, got {numbers}.")
    # Divided by the largest first, since the plain sum may overflow. XLA may divide by multiplying with the reciprocal,
    # which is flushed to zero for numbers above 2^126. Entries are below 2^128, so a factor of 2^-4 is enough. Small
    # vectors are left alone, or the factor itself would flush them to zero.
    reduced = array * jnp.where(array.max() > 1.0, 2.0**-4, 1.0)
    scaled = reduced / reduced.max()
    # A normal entry may have a quotient below the normal floats, which XLA flushes to zero; it stays positive instead.
    return jnp.where(array > 0, jnp.maximum(scaled / scaled.sum(), jnp.finfo(array.dtype).tiny), 0.0)


@contextlib.contextmanager
def requires(extra: str, user: str) -> Iterator[None]:
    """Turns a missing optional package into an ImportError with the command that installs it.

    Args:
        extra: the extra of ``pyproject.toml`` that installs the package.
        user: the function or module that needs it, as the error calls it.

    Yields:
        Nothing; import the package inside the ``with`` block.

    Raises:
        ImportError: the package is missing.

    Example:
        >>> with requires("experiments", "mixjax.sweep"):
        ...     import not_installed
        Traceback (most recent call last):
            ...
        ImportError: mixjax.sweep needs not_installed: pip install not-installed
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{user} needs {error.name}: {install_command(extra, str(error.name))}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Words the end of an error message about an unknown name: asks for the closest known one, or lists all.

    Args:
        name: the unknown name.
        known: all names that would do.

    Returns:
        A question that names the closest one, or the list of all where none is close.

    Example:
        >>> nearest("losess", ["losses", "counts"]), nearest("x", ["losses", "counts"])
        ("did you mean 'losses'?", 'known: losses, counts')
    """
    known = list(known)
    close = closest(name, known)
    if close is not None:
        return f"did you mean {close!r}?"
    return f"known: {', '.join(known) or 'none'}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Finds the known name that is spelled most like an unknown one.

    Args:
        name: the unknown name.
        known: all names that would do.

    Returns:
        The name, or None where no spelling is close.

    Example:
        >>> closest("losess", ["losses", "counts"])
        'losses'
    """
    matches = difflib.get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None
