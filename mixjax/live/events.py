"""Holds what happened in a step beside drawing, in a form that goes through JAX as a part of the batch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any

__all__ = ["Events", "as_events"]


class Events(tuple[dict[str, Any], ...]):
    """Holds the events of a step, a tuple of dictionaries.

    Events have texts, which JAX takes for no arrays: a batch that is moved to the device or passed to a jitted function
    would fail in the first step that has events, hours after the start. So JAX finds no arrays in this tuple. It comes
    out of ``jax.device_put`` and ``jax.tree.map`` as it went in, and a jitted function is compiled once for all events.

    Example:
        >>> import jax
        >>> from mixjax.live.events import as_events
        >>> batch = {"value": 1.0, "events": as_events([{"step": 3, "event": "begins epoch 2"}])}
        >>> jax.tree.leaves(batch), jax.device_put(batch)["events"]
        ([1.0], ({'step': 3, 'event': 'begins epoch 2'},))
    """

    __slots__ = ()


class _Unseen:
    """Carries the events of a step in the structure of a tree.

    JAX compiles a function once for all equal structures. So any two of these are equal, whatever their events are.
    """

    def __init__(self, events: Events):
        self.events = events

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unseen)

    def __hash__(self) -> int:
        return 0


def as_events(events: Iterable[dict[str, Any]] = ()) -> Events:
    """Makes the events of a batch, and tells JAX about their type where it is loaded.

    Args:
        events: dictionaries for JSON, each with ``"step"`` and ``"event"``.
    """
    _register()
    return Events(events)


_registered = False
_registering = threading.Lock()


def _register() -> None:
    global _registered
    # Plans load no JAX. A batch can only meet JAX in a process that has loaded it, mostly before the first batch.
    if _registered or not hasattr(sys.modules.get("jax"), "tree_util"):
        return
    # JAX refuses a type the second time, and plans may be drawn from in several threads.
    with _registering:
        if not _registered:
            import jax

            jax.tree_util.register_pytree_node(
                Events, lambda each: ((), _Unseen(each)), lambda unseen, _: unseen.events
            )
            _registered = True
