"""Loads data once for all runs of a config that need the same."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

__all__ = ["load_once", "one_experiment", "sharing"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass
class _Entry:
    """Holds what a function has loaded.

    Attributes:
        load: the function.
        key: its arguments by name.
        value: what it returned.
        is_used: whether the experiment that is made now, or was made last, has asked for it.
    """

    load: Callable
    key: dict[str, Any]
    value: Any
    is_used: bool = True


# A context variable, so that two threads that run configs share nothing.
_ENTRIES: contextvars.ContextVar[list[_Entry] | None] = contextvars.ContextVar("entries", default=None)


def load_once(load: Callable[_P, _T]) -> Callable[_P, _T]:
    """Lets the runs of a config share the data that a function loads.

    A config may have several ``[[run]]`` tables and labels, and each makes an experiment of its own, once to be tried
    and once to be run. Inside ``mixjax run`` the function is called again only if an argument differs from the last
    call. Data that the experiment at work does not use are dropped, before others are loaded. Elsewhere, the function
    is what it was.

    Args:
        load: a function whose result depends on its arguments alone. They must be comparable by ``==``, and be those
            settings only that concern the data. Nobody may change what it returns.

    Returns:
        The function, as a decorator returns it.

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
        key = dict(bound.arguments)
        found = next((entry for entry in entries if entry.load is load and entry.key == key), None)
        if found is not None:
            found.is_used = True
            return found.value
        # Before the others are loaded: the memory may not hold both.
        entries[:] = [entry for entry in entries if entry.is_used or entry.load is not load]
        value = load(*args, **kwargs)
        entries.append(_Entry(load, key, value))
        return value

    return loaded


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
