"""Checks a saved state of packed rows against the packed mix that it is restored into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mixjax.live.restoring import refuse, saved_integer

__all__ = ["VERSION", "Place", "place_of"]

VERSION = 1
"""Version of the state's form; a state of a newer form is refused."""


class Place(NamedTuple):
    """Holds where a packed batch starts.

    Attributes:
        step: the number of the packed batch.
        start: ``{"step", "row"}``, the plan's step, and the row in its batch, with which the group starts.
        next_row: packed rows of the group that come before.
        counter: packed rows before it since the start of the run.
    """

    step: int
    start: dict[str, int]
    next_row: int
    counter: int


def place_of(state: Mapping[str, Any], settings: Mapping[str, int]) -> Place:
    """Returns where the next packed batch of a state starts.

    Args:
        state: from :meth:`mixjax.live.PackedMix.get_state`.
        settings: what the packed mix was made with, by name; the state has to have the same.

    Raises:
        ValueError: the state is of other settings, of a newer form, or damaged; the error names what is wrong.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"the state is not a packed mix's: it is a {type(state).__name__}, and not a dictionary.")
    missing = {"version", "plan", *settings, *Place._fields} - state.keys()
    if missing:
        raise ValueError(f"the state is not a packed mix's: it lacks {', '.join(sorted(missing))}.")
    if saved_integer(state, "version", 1) > VERSION:
        raise ValueError(f"the state has version {state['version']}, and this mixjax reads up to {VERSION}.")
    for name, mine in settings.items():
        if state[name] != mine:
            raise ValueError(f"the state was saved with {name} = {state[name]}, and this packed mix has {mine}.")
    for name in ("start", "plan"):
        if not isinstance(state[name], Mapping) or "step" not in state[name]:
            refuse(name, state[name])
    start = {name: saved_integer(state["start"], name, 0) for name in ("step", "row")}
    if start["step"] != state["plan"]["step"]:
        raise ValueError(
            f"the plan was saved at step {state['plan']['step']}, and its packed rows start in step {start['step']}: "
            "publish to the packed mix only, and not to its plan."
        )
    return Place(
        step=saved_integer(state, "step", 0),
        start=start,
        next_row=saved_integer(state, "next_row", 0),
        counter=saved_integer(state, "counter", 0),
    )
