"""Tells for how long a rule has been given nothing that it could use."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from mixjax.checks import is_concrete

__all__ = ["unseen_updates", "warn_if_unseen"]


def unseen_updates(state: Any) -> jax.Array:
    """Reads for how many updates in a row a rule had examples, but no row of signals that it could use.

    A row whose signal is NaN or infinite is unseen. A rule that sees no row keeps its weights, so signals that are
    always NaN leave the weights at the prior without an error. A number that keeps growing gives such a fault away.

    Args:
        state: a rule's state, or any pytree that holds some: the state of a wrapper, of
            :func:`mixjax.rules.select`, of an optax chain.

    Returns:
        int32 scalar, the largest number found: 0 after an update that saw a row, one more after each that had a
        positive count and saw none, and the same after an update whose counts are all 0. It is 0 where no rule counts
        (:func:`mixjax.rules.fixed`, :func:`mixjax.rules.gls` and rules of your own whose state lacks the field).

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> rule = mixjax.rules.floor(mixjax.rules.mirror_descent(), 0.1)
        >>> state = rule.init(jnp.array([0.5, 0.5]))
        >>> for _ in range(3):
        ...     state = rule.update(state, counts=jnp.array([9, 9]), hypergrads=jnp.full(2, jnp.nan))
        >>> int(mixjax.rules.unseen_updates(state))
        3
    """
    counters = [
        jnp.max(jnp.asarray(leaf, jnp.int32))
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        # The key is an attribute in a rule's state, and an entry of a dictionary in one that was read from a file.
        if any(jax.tree_util.keystr((key,), simple=True) == "unseen_updates" for key in path)
    ]
    return jnp.max(jnp.stack([jnp.zeros((), jnp.int32), *counters]))


def warn_if_unseen(user: str, state: Any, updates: int) -> None:
    """Warns if a rule has been updated, and never had a row that it could use.

    Args:
        user: the function that ran the updates, as the warning calls it.
        state: the state after them, as for :func:`unseen_updates`. A traced one passes.
        updates: the number of updates.
    """
    unseen = unseen_updates(state)
    if updates and is_concrete(unseen) and int(unseen) >= updates:
        warnings.warn(
            f"{user}: a rule could use no row of signals in {int(unseen)} updates in a row, so its weights stayed as "
            "they were. Look for NaN and infinite signals.",
            RuntimeWarning,
            # The line that called the function that is named.
            stacklevel=3,
        )
