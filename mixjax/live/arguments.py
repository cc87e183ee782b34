"""Checks the arguments of a plan and words their errors, without loading JAX."""

from __future__ import annotations

import operator
import reprlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live.limits import NO_LIMIT

__all__ = ["as_step", "check_host", "check_integer", "check_plan", "check_timeout", "limits_of", "named_sizes"]

_LARGEST_SIZE = 1 << 40


def named_sizes(sizes: Sequence[int] | Mapping[str, int]) -> dict[str, int]:
    """Returns the number of examples of each domain by name; the domains of a sequence are called "0", "1", ...

    Args:
        sizes: integers from 1 to 2^40, at least one.

    Raises:
        ValueError: there is no domain, or a size is out of range.
        TypeError: a name is no text, or a size is a data set.
    """
    named = dict(sizes) if isinstance(sizes, Mapping) else {str(d): n for d, n in enumerate(sizes)}
    if not named:
        raise ValueError("sizes must name at least one domain, got none.")
    for name, size in named.items():
        # JSON knows texts only, and a saved state has to name the same domains.
        if not isinstance(name, str):
            raise TypeError(f"sizes must name the domains by texts, got {name!r}.")
        if hasattr(size, "__len__"):
            raise TypeError(
                f"sizes must be numbers of examples, as live.sizes_of(datasets) returns them, got a "
                f"{type(size).__name__} for domain {name!r}."
            )
        check_integer(f"the size of domain {name!r}", size, 1, _LARGEST_SIZE)
    return {name: int(size) for name, size in named.items()}


def limits_of(sizes: NDArray[np.int64], max_epochs: ArrayLike | None) -> NDArray[np.int64]:
    """Returns the rows that may be drawn of each domain in the whole run.

    Args:
        sizes: int64 ``[D]``.
        max_epochs: a positive number, or ``[D]`` of them; None for no limit.

    Returns:
        int64 ``[D]``; :data:`mixjax.live.limits.NO_LIMIT` where there is none.

    Raises:
        ValueError: another shape, or a number that is not positive.
    """
    if max_epochs is None:
        return np.full(sizes.shape, NO_LIMIT)
    epochs = np.asarray(max_epochs, np.float64)
    if epochs.shape not in ((), sizes.shape) or not (epochs > 0).all():
        raise ValueError(f"max_epochs must be positive, one number or [{sizes.size}], got {max_epochs}.")
    rows = np.floor(sizes * epochs)
    # Larger numbers do not fit into 64 bits with what is added to them, and are never drawn.
    is_limit = rows < 2.0**62
    limits = np.full(sizes.shape, NO_LIMIT)
    limits[is_limit] = rows[is_limit].astype(np.int64)
    return limits


def check_host(host: Any, batch_size: int) -> None:
    """Raises a ValueError unless ``host`` is (index, number of hosts) and the number divides the batch.

    Args:
        host: the argument.
        batch_size: rows of all hosts together.

    Raises:
        ValueError: no pair of integers, or they do not fit.
    """
    is_pair = isinstance(host, (tuple, list)) and len(host) == 2
    if not is_pair or not all(isinstance(each, (int, np.integer)) for each in host):
        raise ValueError(f"host must be two integers, (index, number of hosts), got {host!r}.")
    index, num_hosts = host
    if not 0 <= index < num_hosts or batch_size % num_hosts:
        raise ValueError(
            f"host must be (index, number of hosts), with an index below a number that divides batch_size = "
            f"{batch_size}, got {host}."
        )


def check_plan(plan: Any) -> None:
    """Raises a TypeError unless ``plan`` is a plan, or a packed mix, which takes weights in a plan's place.

    Args:
        plan: the argument.

    Raises:
        TypeError: something else, such as the data sets or the mix.
    """
    if not hasattr(plan, "next_to_publish"):
        raise TypeError(f"plan must be a mixjax.live.Plan, got {type(plan).__name__}.")


def as_step(step: Any) -> int:
    """Returns the number of a step, which may be an array of a single integer on the device.

    Args:
        step: the argument.

    Raises:
        TypeError: something else.
    """
    try:
        return operator.index(step)
    except TypeError:
        raise TypeError(f"step must be one integer, as batch['step'] is, got {reprlib.repr(step)}.") from None


def check_timeout(timeout: Any) -> None:
    """Raises a ValueError unless ``timeout`` is a number of seconds that threads can wait for.

    Args:
        timeout: the argument.

    Raises:
        ValueError: no number, a negative or an infinite one.
    """
    is_number = isinstance(timeout, (int, float, np.number)) and not isinstance(timeout, bool)
    if not is_number or not 0 <= timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be a number of seconds from 0 to {threading.TIMEOUT_MAX:g}, got {timeout!r}.")


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises a ValueError unless ``value`` is one integer, and no bool, in a range.

    :func:`mixjax.numbers.check_integer` takes arrays and traced values too, of which a plan has none.

    Args:
        name: the argument as the error calls it.
        value: the argument.
        low: the least value allowed.
        high: the largest value allowed; None for no bound.

    Raises:
        ValueError: another type, or a value out of range.
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {allowed}, got {value!r}.")
