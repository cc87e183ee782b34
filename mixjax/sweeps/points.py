"""Checks and draws the values of hyperparameters, and makes the arrays that ``train`` gets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["Labels", "as_array", "as_values", "random_points"]

_SCALES = ("linear", "log", "integer")
_SIMPLEX = "simplex"


class Labels(list):
    """Lists strings, such as the names of rules, which ``train`` gets as their positions in a list of names.

    In a plain list of strings, positions count the different strings in the order in which they first appear. With
    ``Labels`` the order is given, so that a string has the same position in every sweep.

    Args:
        values: the strings, for an axis or a column of points.
        names: all strings that can occur, in the order in which ``train`` counts them.

    Raises:
        ValueError: a value is not among the names, or a name occurs twice.

    Example:
        >>> Labels(["fgls", "erma", "fgls"], names=["erma", "fgls"]).positions
        [1, 0, 1]
    """

    def __init__(self, values: Sequence[str], names: Iterable[str]):
        """Looks up the position of each string."""
        super().__init__(values)
        self.names = list(names)
        known = {name: position for position, name in enumerate(self.names)}
        if len(known) < len(self.names) or not set(self) <= set(known):
            raise ValueError(f"labels must be among names that all differ, got {list(values)}, names {self.names}.")
        self.positions = [known[value] for value in self]


def random_points(space: Mapping[str, Sequence], num: int, seed: int = 0) -> dict[str, list]:
    """Draws points for :func:`mixjax.sweep`'s ``points``, each hyperparameter independently.

    Args:
        space: for each hyperparameter one of:

            - ``("linear" | "log" | "integer", low, high)``, drawn uniformly between the two (for "log" uniformly in the
              logarithm, for "integer" both included);
            - ``("simplex", size)``: vectors of ``size`` shares that sum to 1, drawn uniformly from the simplex;
            - a list of numbers, of strings, or of vectors to choose from.
        num: number of points, at least 1.
        seed: the seed of the draws.

    Returns:
        Hyperparameter -> column of ``num`` values. A column of strings is :class:`Labels`, so that ``train`` gets a
        string's position in the list that was given.

    Raises:
        ValueError: a list that is empty, or that mixes strings with numbers; bounds in the wrong order or not finite; a
            log scale that starts at or below 0; bounds of "integer" that are no integers or exceed 64 bits; a size of
            the simplex that is no integer of at least 1; ``num`` below 1.

    Example:
        >>> points = random_points({"gamma": ("log", 1e-4, 1.0), "rule": ["erma", "fgls"]}, num=3, seed=1)
        >>> points
        {'gamma': [0.0111503, 0.633658, 0.000377258], 'rule': ['fgls', 'fgls', 'erma']}
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    random = np.random.default_rng(seed)
    columns = {}
    for name, choices in space.items():
        columns[name] = _draw_of(choices)(name, choices, num, random)
    return columns


def as_values(name: str, values: Any) -> list:
    """Returns an axis or a column as a list of Python's own numbers, of vectors of them, or as :class:`Labels`.

    Args:
        name: the hyperparameter, for the error.
        values: a sequence of numbers, of strings, or of vectors: arrays of numbers that have one shape, or lists.

    Returns:
        The numbers; the strings as labels; or for each vector a list, nested as deep as the vector has dimensions.

    Raises:
        ValueError: one string in place of a list, numbers among strings or among vectors, or vectors of several shapes.
    """
    if isinstance(values, Labels):
        return values
    # A string is a sequence too: its characters are hardly what was meant.
    if isinstance(values, str) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{name}: needs a list of numbers, of strings or of vectors, got {values!r}.")
    # The result's coordinates and the identity in JSON need Python's numbers, not NumPy's or JAX's.
    values = [_plain(value) for value in values]
    if any(isinstance(value, list) for value in values):
        shapes = list(dict.fromkeys(_shape(name, value) for value in values))
        if len(shapes) > 1 or 0 in shapes[0]:
            given = " and ".join(map(str, shapes))
            raise ValueError(f"{name}: vectors must all have one shape, and hold numbers, got shapes {given}.")
        return values
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"{name}: values must be all strings or all numbers, got {values}.")
    if values and isinstance(values[0], str):
        return Labels(values, dict.fromkeys(values))
    return values


def as_array(name: str, values: list) -> np.ndarray:
    """Converts an axis or a column to what ``train`` gets: numbers in JAX's types, labels as their positions.

    Args:
        name: the hyperparameter, for the error.
        values: as :func:`as_values` returns them.

    Returns:
        ``[len(values)]``, of vectors ``[len(values), ...]``, of 32 bits unless ``jax_enable_x64`` is set.

    Raises:
        ValueError: a value is no number, a NaN, or a number that the type cannot hold.
    """
    if isinstance(values, Labels):
        return np.array(values.positions, np.int32)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: needs numbers that fit 64 bits, got {values}.")
    if np.isnan(array).any():
        raise ValueError(f"{name}: nan is no value of a hyperparameter: no run could be selected by it, got {values}.")
    # NumPy reads a list with a number above 2**63 as unsigned; `train` gets signed integers, as from any other list.
    dtype = np.dtype(np.int64) if array.dtype.kind == "u" else array.dtype
    # No warning for a number that does not fit: it is an error below.
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(jax.dtypes.canonicalize_dtype(dtype))
    # Floats may be rounded, but not to infinity; integers must stay what they are.
    fits = np.isfinite(cast) | ~np.isfinite(array) if array.dtype.kind == "f" else cast == array
    if not fits.all():
        raise ValueError(f"{name}: {array[~fits][0]} does not fit {cast.dtype}.")
    return cast


def _plain(value):
    """Returns a number, a string, or a list of them: no tuples, and no types of NumPy or JAX."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if getattr(value, "ndim", 0):
        return _plain(list(value))
    return value.item() if hasattr(value, "item") else value


def _shape(name, value):
    """Returns the shape of a vector as a list, nested or not; () of a number."""
    if not isinstance(value, list):
        if isinstance(value, str):
            raise ValueError(f"{name}: vectors hold numbers, got {value!r} among them.")
        return ()
    inner = {_shape(name, each) for each in value}
    if len(inner) > 1:
        raise ValueError(f"{name}: vectors must all have one shape, got {value}.")
    return (len(value), *next(iter(inner), ()))


def _draw_of(choices):
    """Returns the function that draws from one hyperparameter's choices."""
    if isinstance(choices, tuple) and choices and isinstance(choices[0], str):
        if len(choices) == 3 and choices[0] in _SCALES:
            return _from_range
        if len(choices) == 2 and choices[0] == _SIMPLEX:
            return _from_simplex
    return _from_list


def _from_range(name, choices, num, random):
    scale, low, high = choices
    if not (low <= high and math.isfinite(high - low)) or (scale == "log" and low <= 0):
        raise ValueError(f"{name}: needs low <= high, both finite, for 'log' above 0, got {choices}.")
    if scale == "integer":
        if int(low) != low or int(high) != high or not -(2**63) <= low <= high < 2**63:
            raise ValueError(f"{name}: needs integers of 64 bits, got {choices}.")
        return random.integers(int(low), int(high), num, endpoint=True).tolist()
    if scale == "log":
        return _rounded(np.exp(random.uniform(np.log(low), np.log(high), num)), low, high)
    return _rounded(random.uniform(low, high, num), low, high)


def _from_simplex(name, choices, num, random):
    size = choices[1]
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"{name}: needs ('simplex', size) with an integer of at least 1, got {choices}.")
    return random.dirichlet(np.ones(size), num).tolist()


def _from_list(name, choices, num, random):
    if not len(choices):
        raise ValueError(f"{name}: no values to choose from.")
    chosen = [choices[i] for i in random.integers(len(choices), size=num)]
    num_strings = sum(isinstance(choice, str) for choice in choices)
    if 0 < num_strings < len(choices):
        # A tuple that begins with a string was likely meant as a range.
        if isinstance(choices, tuple) and isinstance(choices[0], str):
            raise ValueError(f"{name}: unknown scale {choices[0]!r}; known: 'linear', 'log', 'integer', 'simplex'.")
        raise ValueError(f"{name}: needs strings or numbers only, got {choices}.")
    # The names are in the order of the list, not of the draws: a string keeps its position whatever is drawn.
    return Labels(chosen, dict.fromkeys(choices)) if num_strings else chosen


def _rounded(values, low, high):
    """Rounds random numbers to six digits, so that they are easy to read, and keeps them within the bounds."""
    return [float(min(max(float(f"{value:.6g}"), low), high)) for value in values]
