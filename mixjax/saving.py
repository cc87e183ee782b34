"""Restores saved states of rules, optimizers, samplers and training, also ones that an older version has saved.

Every state of mixjax is a pytree of arrays, and every checkpoint format takes it:

- ``orbax``: ``checkpointer.save(path, state)`` and ``checkpointer.restore(path, fresh)``;
- ``flax.serialization``: ``to_bytes(state)`` and ``from_bytes(fresh, saved)``;
- ``pickle``.

``fresh`` is a state as ``init`` makes it. Flax's msgpack takes no typed ``jax.random.key``. States of mixjax hold none,
but that of ``optax.add_noise`` does. For ``flax.nnx.Optimizer`` save ``nnx.to_pure_dict(nnx.state(optimizer))``.

Two things are left to :func:`restore`. A checkpoint that orbax restores without a target, or
``flax.serialization.msgpack_restore``, comes as nested dictionaries and lists in place of the state's own types. And a
state that an older version has saved may lack a field that has come since.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from mixjax.checks import nearest

__all__ = ["restore"]

Tree = TypeVar("Tree")

_ADDED = ("unseen_updates", "nonfinite_updates")
"""Fields that states have got over time. A state saved without them goes on with their values in a fresh state."""


def restore(fresh: Tree, saved: Any) -> Tree:
    """Puts saved numbers into a fresh state, leaf by leaf, by the names on the way to each leaf.

    Args:
        fresh: a state as ``init`` makes it; any pytree of arrays.
        saved: the same state as a checkpoint returned it: nested dictionaries and lists, or a pytree of other types
            with the same names of fields, keys and places.

    Returns:
        A state of JAX arrays with the types, shapes and dtypes of ``fresh``. Fields that mixjax has added since the
        state was saved, such as ``unseen_updates``, keep the values of ``fresh``.

    Raises:
        ValueError: a leaf that only one of the two has, or leaves of different shapes.

    Example:
        >>> import flax.serialization, jax.numpy as jnp, mixjax, optax
        >>> tx = optax.chain(mixjax.track(mixjax.rules.fgls(), jnp.array([0.5, 0.5])), optax.adam(1e-3))
        >>> signals = dict(losses=jnp.array([1.0, 3.0]), counts=jnp.array([8, 8]))
        >>> _, state = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)), **signals)
        >>> saved = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
        >>> mixjax.get_weights(mixjax.saving.restore(tx.init(jnp.zeros(2)), saved)).tolist()
        [0.75, 0.25]
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(fresh)
    found = {_names(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(saved)[0]}
    restored = []
    for path, leaf in leaves:
        names = _names(path)
        if names in found:
            restored.append(_like(leaf, found.pop(names), names))
        elif names[-1] in _ADDED:
            restored.append(leaf)
        else:
            close = nearest(".".join(names), map(".".join, found))
            raise ValueError(f"the saved state has no {'.'.join(names)!r}, which the fresh one has; {close}")
    if found:
        close = nearest(".".join(next(iter(found))), (".".join(_names(path)) for path, _ in leaves))
        raise ValueError(f"the saved state has {'.'.join(next(iter(found)))!r}, which the fresh one has not; {close}")
    return jax.tree.unflatten(structure, restored)


def _names(path) -> tuple[str, ...]:
    """Names the way to a leaf, whether it leads through fields, keys or places: a saved tuple may be a dictionary."""
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def _like(fresh, saved, names):
    if jnp.shape(saved) != jnp.shape(fresh):
        raise ValueError(
            f"the saved {'.'.join(names)!r} has shape {jnp.shape(saved)}, the fresh one {jnp.shape(fresh)}: make the "
            "fresh state with the prior and the parameters of the run that was saved."
        )
    # Typed keys cannot be cast, not even to their own dtype.
    if isinstance(saved, jax.Array) and saved.dtype == getattr(fresh, "dtype", None):
        return saved
    return jnp.asarray(saved, getattr(fresh, "dtype", None))
