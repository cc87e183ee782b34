"""The values of hyperparameters: labels, random points, and the arrays that a sweep makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

__all__ = ["Labels", "as_array", "as_values", "random_points"]

_SCALES = ("linear", "log", "integer")


class Labels(list):
    """Lists strings, such as the names of rules, that ``train`` gets as positions among all names that there are.

    A plain list of strings counts positions in the order in which the strings first appear. With ``Labels`` the order
    is given, so that a string has the same position in every sweep.

    Args:
        values: the strings, for an axis or a column of points.
        names: all that there can be, in the order in which ``train`` counts them.

    Raises:
        ValueError: one is not among the names, or a name occurs twice.

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
        space: for each hyperparameter either ``("linear" | "log" | "integer", low, high)``, drawn uniformly between the
            two (for "log" uniformly in the logarithm, for "integer" both included), or a list of numbers or of strings
            to choose from.
        num: number of points, at least 1.
        seed: the seed of the draws.

    Returns:
        Columns of ``num`` values; strings as :class:`Labels`, so that ``train`` gets their positions in the list.

    Raises:
        ValueError: a list that is empty or mixed, bounds in the wrong order or not finite, a log scale that starts at
            or below 0, bounds of integers that are none or exceed 64 bits, ``num`` below 1.

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
        draw = _from_range if _is_range(choices) else _from_list
        columns[name] = draw(name, choices, num, random)
    return columns


def as_values(name: str, values: Any) -> list:
    """Returns an axis or a column as a list of Python's own numbers, or as :class:`Labels`.

    Args:
        name: the hyperparameter, for the error.
        values: a sequence of numbers or of strings.

    Raises:
        ValueError: one string in place of a list, values that are lists themselves, or numbers among strings.
    """
    if isinstance(values, Labels):
        return values
    values = values if isinstance(values, str) else list(values)
    if isinstance(values, str) or np.ndim(values) != 1:
        raise ValueError(f"{name}: needs a list of numbers or of strings, got {values!r}.")
    # The result's coordinates and the identity in JSON need Python's numbers, not NumPy's or JAX's.
    values = [value.item() if hasattr(value, "item") else value for value in values]
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"{name}: values must be all strings or all numbers, got {values}.")
    if values and isinstance(values[0], str):
        return Labels(values, dict.fromkeys(values))
    return values


def as_array(name: str, values: list) -> np.ndarray:
    """Returns an axis or a column as ``train`` gets it: numbers in JAX's types, labels as their positions.

    Args:
        name: the hyperparameter, for the error.
        values: as :func:`as_values` returns them.

    Returns:
        One value each, of 32 bits unless ``jax_enable_x64`` is set.

    Raises:
        ValueError: something that is no number, or a number that the type cannot hold.
    """
    if isinstance(values, Labels):
        return np.array(values.positions, np.int32)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: needs numbers that fit 64 bits, got {values}.")
    # NumPy reads a list with a number above 2**63 as unsigned; train shall get signed integers as from other lists.
    own = np.dtype(np.int64) if array.dtype.kind == "u" else array.dtype
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is named below
        cast = array.astype(jax.dtypes.canonicalize_dtype(own))
    # Floats may be rounded, but not to infinity; integers must stay what they are.
    fits = np.isfinite(cast) | ~np.isfinite(array) if array.dtype.kind == "f" else cast == array
    if not fits.all():
        raise ValueError(f"{name}: {array[~fits][0]} does not fit {cast.dtype}.")
    return cast


def _is_range(choices):
    return isinstance(choices, tuple) and len(choices) == 3 and choices[0] in _SCALES


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


def _from_list(name, choices, num, random):
    if not len(choices):
        raise ValueError(f"{name}: no values to choose from.")
    chosen = [choices[i] for i in random.integers(len(choices), size=num)]
    are_strings = {isinstance(choice, str) for choice in choices}
    if len(are_strings) > 1:
        if isinstance(choices, tuple) and isinstance(choices[0], str):
            raise ValueError(f"{name}: unknown scale {choices[0]!r}; known: 'linear', 'log', 'integer'.")
        raise ValueError(f"{name}: needs strings or numbers only, got {choices}.")
    # The names in the order of the list, not of the draws: a string keeps its position whatever is drawn.
    return Labels(chosen, dict.fromkeys(choices)) if True in are_strings else chosen


def _rounded(values, low, high):
    """Rounds random numbers to six digits, which are enough and can be read, without leaving the bounds."""
    return [float(min(max(float(f"{value:.6g}"), low), high)) for value in values]
