"""Holds where a plan stands between two steps: the part of its state that drawing changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Position"]


class Position(NamedTuple):
    """Holds where the plan stands before a step; arrays are never changed in place.

    A snapshot is four arrays of 8 bytes a domain.

    Attributes:
        drawn: int64 ``[D]``, rows drawn of each domain so far.
        tokens: int64 ``[D]``, tokens drawn of each domain so far; zeros in a plan that counts rows.
        carry: int64 ``[D]``, rows or tokens owed, in units of 2⁻³². They sum to zero.
        mass: float64 ``[D]``, loss weight that waits for rows of its domain.
        spent: tokens drawn in all, also of domains that were removed since.
        is_below: whether the plan has said that limits cut weights off.
        waiting: names of the domains of which the plan has said that their loss weight waits for rows.
        near_one: of "sampling" and "loss", the weights that the plan has said, or found from the start, to be near a
            single domain.
        events: what happened since the step before, for the next batch.
    """

    drawn: NDArray[np.int64]
    tokens: NDArray[np.int64]
    carry: NDArray[np.int64]
    mass: NDArray[np.float64]
    spent: int = 0
    is_below: bool = False
    waiting: frozenset[str] = frozenset()
    near_one: frozenset[str] = frozenset()
    events: tuple[dict[str, Any], ...] = ()

    @classmethod
    def start(cls, num_domains: int, near_one: frozenset[str] = frozenset()) -> Position:
        """Returns the position before the first step."""
        zeros = np.zeros(num_domains, np.int64)
        return cls(drawn=zeros, tokens=zeros, carry=zeros, mass=np.zeros(num_domains), near_one=near_one)

    def get_state(self, counts_tokens: bool) -> dict[str, Any]:
        """Returns the position for JSON."""
        state: dict[str, Any] = {
            "drawn": self.drawn.tolist(),
            "carry": self.carry.tolist(),
            "mass": self.mass.tolist(),
            "is_below": self.is_below,
            "waiting": sorted(self.waiting),
            "near_one": sorted(self.near_one),
            "events": list(self.events),
        }
        if counts_tokens:
            state |= {"tokens": self.tokens.tolist(), "spent": self.spent}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """Returns the position of a state that was checked."""
        drawn = np.array(state["drawn"], np.int64)
        return cls(
            drawn=drawn,
            tokens=np.array(state["tokens"], np.int64) if "tokens" in state else np.zeros_like(drawn),
            carry=np.array(state["carry"], np.int64),
            mass=np.array(state["mass"], np.float64),
            spent=state.get("spent", 0),
            # A state of an older mixjax says none of these, or not all.
            is_below=state.get("is_below", False),
            waiting=frozenset(state.get("waiting", ())),
            near_one=frozenset(state.get("near_one", ())),
            events=tuple(state.get("events", ())),
        )
