"""Loads data once for all runs of a config that need the same."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from mixjax.sweeps.arrays import digest
from mixjax.sweeps.keys import bits

__all__ = ["load_once", "one_experiment", "sharing"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass
class _Entry:
    """Holds what a function has loaded.

    Attributes:
        load: the function.
        key: its arguments, as :func:`_compared` returns them.
        value: what it returned.
        is_used: whether the experiment that is made now, or was made last, has asked for it.
    """

    load: Callable
    key: Hashable
    value: Any
    is_used: bool = True


# A context variable, so that two threads that run configs share nothing.
_ENTRIES: contextvars.ContextVar[list[_Entry] | None] = contextvars.ContextVar("entries", default=None)


def load_once(load: Callable[_P, _T]) -> Callable[_P, _T]:
    """Lets the runs of a config share the data that a function loads.

    A config may have several ``[[run]]`` tables and labels, and each makes an experiment of its own, once to be tried
    and once to be run. Inside ``mixjax run`` the function is called again only if an argument differs from the last
    call. What it has loaded and the experiment at work does not use is dropped before it loads more. Data of other
    functions are dropped when the experiment is made: only then it is known that it does not use them. Elsewhere, the
    function is what it was.

    Args:
        load: a function whose result depends on its arguments alone. These should be those settings only that concern
            the data. Numbers, texts, arrays, and tuples, lists, dicts and dataclasses of them are compared by type and
            value, NaN equal to NaN, and others by ``==``. Nobody may change what it returns: NumPy arrays in it are
            made read-only. JAX arrays that a run has donated are loaded again.

    Returns:
        The function, as a decorator returns it. Inside ``mixjax run`` it raises a TypeError for an argument that is
        none of the above and not hashable, and for a result that can be read only once, such as a generator.

    Example:
        >>> @load_once
        ... def load(size: int):
        ...     print("reading")
        ...     return [0] * size
        >>> with sharing():
        ...     for size in (2, 2, 3):
        ...         with one_experiment():
        ...             data = load(size)
        reading
        reading
    """
    signature = inspect.signature(load)

    @functools.wraps(load)
    def loaded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        entries = _ENTRIES.get()
        if entries is None:
            return load(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # Copies by value, so that an argument that is changed afterwards is another one.
        key = tuple((name, _compared(f"argument {name} of {_name(load)}", x)) for name, x in bound.arguments.items())
        found = next((entry for entry in entries if entry.load is load and entry.key == key), None)
        if found is not None and _is_donated(found.value):
            entries.remove(found)
            found = None
        if found is not None:
            found.is_used = True
            return found.value
        # Before the others are loaded: the memory may not hold both.
        entries[:] = [entry for entry in entries if entry.is_used or entry.load is not load]
        value = load(*args, **kwargs)
        if isinstance(value, Iterator):
            raise TypeError(
                f"{_name(load)} must return data that can be read again, such as a list, got {type(value).__name__}."
            )
        for array in _arrays_in(value):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        entries.append(_Entry(load, key, value))
        return value

    return loaded


def _compared(what: str, value: Any) -> Hashable:
    """Returns what stands for an argument when it is compared: equal for equal types and values only.

    Raises:
        TypeError: the argument, or something in it, is of a type that cannot be compared.
    """
    kind = type(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)) and value.dtype != object:
        numbers = bits(value) if isinstance(value, jax.Array) else value
        return kind, str(value.dtype), digest({"": np.asarray(numbers)})
    if isinstance(value, (float, complex)):
        # NaN is not equal to itself, and 0.0 is equal to -0.0.
        return kind, repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind, tuple(_compared(what, getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return kind, tuple((_compared(what, name), _compared(what, item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return kind, tuple(_compared(what, item) for item in value)
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{what} must be a number, a text, an array, a dataclass or hashable, got {kind.__name__}."
        ) from None
    return kind, value


def _arrays_in(value: Any) -> Iterator[np.ndarray | jax.Array]:
    """Yields the arrays in what a function has loaded."""
    if isinstance(value, (np.ndarray, jax.Array)):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _arrays_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _arrays_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _arrays_in(getattr(value, field.name))


def _is_donated(value: Any) -> bool:
    """Tells whether a run has given away the memory of an array."""
    return any(array.is_deleted() for array in _arrays_in(value) if isinstance(array, jax.Array))


def _name(function: Callable) -> str:
    return getattr(function, "__qualname__", repr(function))


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Lets :func:`load_once` keep data for the experiments that are made in a ``with`` block.

    Yields:
        Nothing. At the end of the block nothing is kept.
    """
    token = _ENTRIES.set([])
    try:
        yield
    finally:
        _ENTRIES.reset(token)


@contextlib.contextmanager
def one_experiment() -> Iterator[None]:
    """Makes one experiment in a ``with`` block; what it has not loaded is dropped at the end.

    Yields:
        Nothing.
    """
    entries = _ENTRIES.get()
    if entries is None:
        yield
        return
    # Replaced and not changed in a loop, whose variable would keep the last one alive.
    entries[:] = [dataclasses.replace(entry, is_used=False) for entry in entries]
    yield
    entries[:] = [entry for entry in entries if entry.is_used]
