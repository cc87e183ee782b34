"""Checks a saved plan against the plan that it is restored into, and fits it to domains that came or went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mixjax.live.weights import as_weights

if TYPE_CHECKING:
    from mixjax.live.plan import Plan

__all__ = ["VERSION", "checked"]

VERSION = 1
"""Version of the state's form; a state of a newer form is refused."""

_FIELDS = (
    *("version", "seed", "batch_size", "sizes", "step", "drawn", "carry", "mass"),
    *("lag", "next_to_publish", "changes"),
)


def checked(state: Mapping[str, Any], plan: Plan, domains: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns a state that fits the plan, and events for the ledger.

    Args:
        state: from :meth:`mixjax.live.Plan.get_state`.
        plan: the plan to restore into.
        domains: ``"same"`` or ``"changed"``.

    Returns:
        ``(state, events)``; the state is a copy, and for other domains has the rows of this plan's domains.

    Raises:
        ValueError: the state does not fit; the error names what differs.
    """
    if domains not in ("same", "changed"):
        raise ValueError(f"domains must be 'same' or 'changed', got {domains!r}.")
    missing = [field for field in _FIELDS if field not in state]
    if missing:
        raise ValueError(f"the state is not a plan's: it lacks {', '.join(missing)}.")
    if state["version"] > VERSION:
        raise ValueError(f"the state has version {state['version']}, and this mixjax reads up to {VERSION}.")
    for name, mine in (("seed", plan.seed), ("batch_size", plan.batch_size), ("lag", plan.lag)):
        if state[name] != mine:
            raise ValueError(f"the state was saved with {name} = {state[name]}, and this plan has {mine}.")
    saved, mine = dict(state["sizes"]), plan.sizes
    for name in saved.keys() & mine.keys():
        if saved[name] != mine[name]:
            raise ValueError(f"domain {name!r} had {saved[name]} examples when saved, and has {mine[name]} now.")
    if list(saved) == list(mine):
        return dict(state), []
    added = [name for name in mine if name not in saved]
    removed = [name for name in saved if name not in mine]
    if domains == "same":
        changes = f"added {added}, removed {removed}" if added or removed else "the same in another order"
        raise ValueError(f"the state has other domains ({changes}): pass domains='changed' if that is meant.")
    return _fitted(state, plan, added, removed)


def _fitted(state, plan, added, removed):
    """Moves the rows of the domains that stayed to their places in the plan, and starts the new ones."""
    saved, names = list(state["sizes"]), list(plan.sizes)
    kept = [name for name in names if name in state["sizes"]]
    if not kept:
        raise ValueError(f"none of the plan's domains {names} is in the state, which has {saved}.")
    old, new = [saved.index(name) for name in kept], [names.index(name) for name in kept]
    is_new = np.isin(names, added)

    def rows(values, dtype):
        moved = np.zeros(len(names), dtype)
        moved[new] = np.array(values, dtype)[old]
        return moved

    def weights(values):
        """Gives new domains the share of the plan's first weights, and the others the rest as they had it."""
        if values is None:
            return None
        first = np.where(is_new, plan.first_weights, 0.0).astype(np.float64)
        stayed = rows(values, np.float64)
        if stayed.any():
            stayed *= (1.0 - first.sum()) / stayed.sum()
        return as_weights("weights", first + stayed, len(names)).tolist()

    carry = rows(state["carry"], np.int64)
    # What is owed sums to zero. What the removed domains were owed, or had too much, is shared by those that stayed.
    share, rest = divmod(int(carry.sum()), len(kept))
    carry[new] -= share
    carry[new[0]] -= rest
    changes = [
        change | {"weights": weights(change["weights"]), "loss_weights": weights(change["loss_weights"])}
        for change in state["changes"]
    ]
    fitted = dict(state) | {
        "sizes": dict(plan.sizes),
        "drawn": rows(state["drawn"], np.int64).tolist(),
        "mass": rows(state["mass"], np.float64).tolist(),
        "carry": carry.tolist(),
        "changes": changes,
    }
    return fitted, [{"step": state["step"], "event": "domains changed", "added": added, "removed": removed}]
