"""Checks a saved plan against the plan that it is restored into, and fits it to domains that came or went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mixjax.live.spread import KINDS
from mixjax.live.weights import as_weights

if TYPE_CHECKING:
    from mixjax.live.plan import Plan

__all__ = ["VERSION", "checked", "refuse", "saved_integer"]

VERSION = 2
"""Version of the state's form; a state of a newer form is refused."""

_FIELDS = (
    *("version", "seed", "batch_size", "sizes", "step", "drawn", "carry", "mass"),
    *("lag", "next_to_publish", "changes"),
)


def checked(state: Mapping[str, Any], plan: Plan, domains: str) -> dict[str, Any]:
    """Returns a state that fits the plan.

    Args:
        state: from :meth:`mixjax.live.Plan.get_state`.
        plan: the plan to restore into.
        domains: ``"same"`` or ``"changed"``.

    Returns:
        A copy of the state. For other domains it has the rows of this plan's domains, and an event that says so.

    Raises:
        ValueError: the state does not fit, or is damaged; the error names what differs or is wrong.
    """
    if domains not in ("same", "changed"):
        raise ValueError(f"domains must be 'same' or 'changed', got {domains!r}.")
    if not isinstance(state, Mapping):
        raise ValueError(f"the state is not a plan's: it is a {type(state).__name__}, and not a dictionary.")
    missing = [field for field in _FIELDS if field not in state]
    if missing:
        raise ValueError(f"the state is not a plan's: it lacks {', '.join(missing)}.")
    if saved_integer(state, "version", 1) > VERSION:
        raise ValueError(f"the state has version {state['version']}, and this mixjax reads up to {VERSION}.")
    state = _undamaged(state)
    for name, mine in (("seed", plan.seed), ("batch_size", plan.batch_size), ("lag", plan.lag)):
        if state[name] != mine:
            raise ValueError(f"the state was saved with {name} = {state[name]}, and this plan has {mine}.")
    saved, mine = dict(state["sizes"]), plan.sizes
    _check_same(saved, mine, "examples")
    totals = state["token_totals"]
    if (totals is None) != (plan.token_totals is None):
        kinds = ("tokens", "rows") if plan.token_totals is None else ("rows", "tokens")
        raise ValueError(f"the state was saved by a plan that counts {kinds[0]}, and this plan counts {kinds[1]}.")
    if totals is not None:
        assert plan.token_totals is not None
        _check_same(dict(zip(saved, totals, strict=True)), dict(zip(mine, plan.token_totals, strict=True)), "tokens")
    if list(saved) == list(mine):
        return dict(state)
    added = [name for name in mine if name not in saved]
    removed = [name for name in saved if name not in mine]
    if domains == "same":
        changes = f"added {added}, removed {removed}" if added or removed else "the same in another order"
        raise ValueError(f"the state has other domains ({changes}): pass domains='changed' if that is meant.")
    return _fitted(state, plan, added, removed)


def _check_same(saved, mine, unit):
    for name in saved.keys() & mine.keys():
        if saved[name] != mine[name]:
            raise ValueError(f"domain {name!r} had {saved[name]} {unit} when saved, and has {mine[name]} now.")


def _undamaged(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a state with plain numbers, and refuses what :meth:`mixjax.live.Plan.get_state` never gives."""
    sizes = state["sizes"]
    if not isinstance(sizes, Mapping) or not sizes:
        refuse("sizes", sizes)
    num_domains = len(sizes)
    found: dict[str, Any] = dict(state) | {name: saved_integer(state, name, 0) for name in ("step", "next_to_publish")}
    found |= {name: _vector(state, name, num_domains, "iu", np.int64) for name in ("drawn", "carry")}
    found["mass"] = _vector(state, "mass", num_domains, "iuf", np.float64)
    if found["step"] > found["next_to_publish"]:
        refuse("step", state["step"])
    if min(found["drawn"]) < 0:
        refuse("drawn", state["drawn"])
    found |= _undamaged_tokens(state, num_domains)
    # Carries sum to zero. A domain is never owed more than about ten rows, nor many more tokens than ten of the longest
    # rows. A damaged state that owes more would be drawn for a long time.
    most = 1 << (48 if found["token_totals"] is None else 60)
    if sum(found["carry"]) or max(map(abs, found["carry"])) >= most:
        refuse("carry", state["carry"])
    if not isinstance(state.get("is_below", False), bool):
        refuse("is_below", state["is_below"])
    events = state.get("events", [])
    if not isinstance(events, (list, tuple)) or not all(map(_is_event, events)):
        refuse("events", events)
    waiting = state.get("waiting", [])
    if not isinstance(waiting, (list, tuple)) or not all(isinstance(name, str) for name in waiting):
        refuse("waiting", waiting)
    near_one = state.get("near_one", [])
    if not isinstance(near_one, (list, tuple)) or not all(name in KINDS for name in near_one):
        refuse("near_one", near_one)
    # Each step adds 1 to the loss weight that waits, and rounding in float32 a little more.
    if not min(found["mass"]) >= 0 or not sum(found["mass"]) <= 1.001 * found["step"]:
        refuse("mass", state["mass"])
    changes = state["changes"]
    if not isinstance(changes, (list, tuple)) or not changes:
        refuse("changes", changes)
    found["changes"] = [_undamaged_change(change, num_domains) for change in changes]
    # The step that comes next has to have weights, each change follows the one before, and what nobody has published
    # yet changes nothing.
    starts = [change["from"] for change in found["changes"]]
    if starts[0] > found["step"] or starts != sorted(set(starts)):
        refuse("changes", f"from the steps {starts}")
    if starts[-1] and starts[-1] >= found["next_to_publish"] + saved_integer(state, "lag", 1):
        refuse("changes", f"from step {starts[-1]}")
    return found


def _is_event(event) -> bool:
    return isinstance(event, Mapping) and isinstance(event.get("event"), str) and isinstance(event.get("step"), int)


def _undamaged_change(change, num_domains) -> dict[str, Any]:
    if not isinstance(change, Mapping) or not {"weights", "loss_weights"} <= change.keys():
        refuse("changes", change)
    found: dict[str, Any] = {"from": saved_integer(change, "from", 0)}
    for name in ("weights", "loss_weights"):
        found[name] = change[name]
        if name == "weights" or change[name] is not None:
            as_weights(f"the state's {name}", change[name], num_domains)
            found[name] = np.asarray(change[name], np.float32)
            # Weights were normalised in float32 before they were saved.
            if abs(found[name].sum(dtype=np.float64) - 1.0) > 1e-3:
                refuse("changes", f"{name} {change[name]}")
    return found


def _undamaged_tokens(state, num_domains) -> dict[str, Any]:
    """Returns what a state has of tokens, which is nothing where its plan counts rows."""
    totals = state.get("token_totals")
    if totals is None:
        return {"token_totals": None}
    totals = _vector(state, "token_totals", num_domains, "iu", np.int64)
    tokens = _vector(state, "tokens", num_domains, "iu", np.int64)
    if min(tokens) < 0:
        refuse("tokens", state["tokens"])
    return {"token_totals": totals, "tokens": tokens, "spent": saved_integer(state, "spent", 0)}


def saved_integer(state: Mapping[str, Any], name: str, least: int) -> int:
    """Returns an integer of a saved state; refuses anything else, or a number below the least."""
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        refuse(name, value)
    return int(value)


def _vector(state, name, num_domains, kinds, dtype):
    try:
        values = np.asarray(state.get(name))
    except ValueError:
        refuse(name, state[name])
    if values.shape != (num_domains,) or values.dtype.kind not in kinds:
        refuse(name, state.get(name))
    return values.astype(dtype).tolist()


def refuse(name: str, value: Any) -> NoReturn:
    """Raises a ValueError that says that an entry of a saved state cannot be what it is."""
    raise ValueError(f"the state is damaged: {name} cannot be {str(value)[:80]!r}.")


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
    # Carries must sum to zero. The domains that stayed share what the removed ones were owed, or had too much.
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
        "waiting": [name for name in state.get("waiting", ()) if name in kept],
    }
    if "tokens" in state:
        fitted["tokens"] = rows(state["tokens"], np.int64).tolist()
    event = {"step": state["step"], "event": "domains changed", "added": added, "removed": removed}
    return fitted | {"events": [*state.get("events", ()), event]}
