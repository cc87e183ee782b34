"""Checks where an adapter stands among the wrappers of optax and flax, and words the errors that name the cure."""

from __future__ import annotations

import collections
import contextlib
import functools
import sys
from typing import Any

import jax
import optax

__all__ = ["NO_SIGNALS", "check_all_there", "check_place", "let_flax_save_named_chains"]

NO_SIGNALS = (
    "got no domain signals: call tx.update(grads, state, params, counts=..., ...) with the rule's signals as keyword "
    "arguments. If you did, a wrapper drops them: take mixjax.accumulate for optax.MultiSteps, and see the docstring "
    "of mixjax.transforms for flax's TrainState."
)
"""The end of the error about an ``update`` without ``counts``; it begins with the function's name."""

_TAKE_NO_SIGNALS = ("lookahead", "sam", "split_real_and_imaginary")
_COMPARE_SHAPES = ("apply_if_finite", "conditionally_mask", "conditionally_transform", "flatten", "mechanize")


def check_place(name: str) -> None:
    """Raises a ValueError if ``init`` is called by a wrapper of optax inside which ``update`` cannot work.

    Args:
        name: the adapter, "aggregate" or "track".

    Raises:
        ValueError: one of the callers is such a wrapper; the error says where the wrapper goes.
    """
    # The adapter cannot see what stands around it, but its callers can be seen. Without this, the error would come at
    # the first update, from inside optax or JAX, and would not mention the adapter.
    refused = {wrapper: "drops the domain signals" for wrapper in _TAKE_NO_SIGNALS}
    if name == "aggregate":
        refused |= {
            wrapper: "needs gradients of the parameters' shapes, not stacked ones" for wrapper in _COMPARE_SHAPES
        }
        refused["MultiSteps"] = f"{refused['flatten']} (mixjax.accumulate takes them)"
    frame = sys._getframe()
    while frame is not None:
        wrapper = frame.f_code.co_qualname.split(".")[0]
        if wrapper in refused and frame.f_globals.get("__name__", "").startswith("optax."):
            raise ValueError(
                f"{name} stands inside {wrapper}, which {refused[wrapper]}: put {wrapper} behind it, "
                f"optax.chain(mixjax.{name}(...), {wrapper}(...)), as the docstring of mixjax.transforms shows."
            )
        frame = frame.f_back


def check_all_there(updates: Any) -> None:
    """Raises a ValueError if a mask around ``aggregate`` hides some of the stacked gradients.

    Args:
        updates: the gradients that ``aggregate`` got.

    Raises:
        ValueError: a leaf is masked; the error says where the mask goes.
    """
    masked = jax.tree.leaves(updates, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
    if any(isinstance(leaf, optax.MaskedNode) for leaf in masked):
        # optax.masked hands on the gradients it masks as they are: stacked, which would change the parameters' shape.
        raise ValueError(
            "aggregate got part of the gradients, the others would stay stacked: put optax.masked, optax.partition or "
            "optax.selective_transform behind it, optax.chain(mixjax.aggregate(...), optax.masked(...))."
        )


@functools.cache
def let_flax_save_named_chains() -> None:
    """Registers the OrderedDict in which optax.named_chain keeps its states with flax.serialization, once."""
    try:
        # Here, since flax takes a while to load. It can save dictionaries, but not their ordered kind.
        from flax import serialization
    except ModuleNotFoundError:
        return

    def to_state_dict(states):
        return {name: serialization.to_state_dict(state) for name, state in states.items()}

    def from_state_dict(states, saved):
        restored = serialization.from_state_dict(dict(states), saved)
        return collections.OrderedDict((name, restored[name]) for name in states)

    # A ValueError says that flax, or the user's program, has registered it already.
    with contextlib.suppress(ValueError):
        serialization.register_serialization_state(collections.OrderedDict, to_state_dict, from_state_dict)
