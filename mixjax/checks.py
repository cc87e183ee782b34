"""Argument checks: errors that name the argument, what it got and what it takes."""

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = [
    "as_simplex",
    "check_integer",
    "check_positive",
    "check_range",
    "closest",
    "is_concrete",
    "nearest",
    "requires",
]


def is_concrete(value: ArrayLike) -> bool:
    """Whether ``value`` can be looked at, i.e. is not traced by jit, vmap, scan or grad."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check_range(name: str, value: ArrayLike, low: float, high: float = math.inf) -> None:
    """Raises a ValueError if a concrete hyperparameter is not finite or leaves ``[low, high]``."""
    if is_concrete(value):
        numbers = np.asarray(value)
        if not (np.isfinite(numbers).all() and (numbers >= low).all() and (numbers <= high).all()):
            raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}.")


def check_integer(name: str, value: ArrayLike, low: int) -> None:
    """Raises a ValueError if a concrete hyperparameter is not an integer of at least ``low``."""
    if is_concrete(value) and not (np.issubdtype(np.asarray(value).dtype, np.integer) and np.all(value >= low)):
        raise ValueError(f"{name} must be an integer of at least {low}, got {value}.")


def check_positive(name: str, value: ArrayLike) -> None:
    """Raises a ValueError if a concrete hyperparameter is not above zero; ``inf`` passes."""
    if is_concrete(value) and not bool(np.all(np.asarray(value) > 0)):
        raise ValueError(f"{name} must be positive, got {value}.")


def as_simplex(name: str, values: ArrayLike) -> jax.Array:
    """Normalises a non-negative vector to sum one, as strongly typed float32 ``[D]``.

    Args:
        name: what the error messages call it.
        values: shape ``[D]``, finite, non-negative, not all zero; what is below the smallest normal float32 is zero.

    Returns:
        float32 ``[D]`` on the simplex.

    Raises:
        ValueError: a shape other than ``[D]`` with ``D >= 1``; or, where the values are concrete, a negative or
            non-finite entry or a sum of zero.
    """
    array = jnp.asarray(values, jnp.float32)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector with one entry per domain, got shape {array.shape}.")
    if is_concrete(values):
        numbers = np.asarray(values, np.float32)
        if not (np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.max() >= np.finfo(np.float32).tiny):
            raise ValueError(f"{name} must be finite, non-negative and not all zero, got {numbers}.")
    # A quotient may be computed with the reciprocal, and above 2^126 that is flushed to zero.
    reduced = array * jnp.where(array.max() > 1.0, 2.0**-4, 1.0)
    scaled = reduced / reduced.max()
    # Positive entries stay positive: what gets below the normal floats would be flushed to zero.
    return jnp.where(array > 0, jnp.maximum(scaled / scaled.sum(), jnp.finfo(jnp.float32).tiny), 0.0)


@contextlib.contextmanager
def requires(extra: str, user: str) -> Iterator[None]:
    """Turns a missing optional package into an ImportError that names the extra to install.

    Args:
        extra: the extra of `pyproject.toml` that installs the package.
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
        ImportError: mixjax.sweep needs not_installed: pip install 'mixjax[experiments]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{user} needs {error.name}: pip install 'mixjax[{extra}]'") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggests the known name that is spelled most like an unknown one, for the end of an error message.

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
    return f"did you mean {close!r}?" if close is not None else f"known: {', '.join(known) or 'none'}"


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
