"""Shapes and dtypes of a pytree as a key that can be compared and hashed."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["Shapes"]


class Shapes:
    """Describes a pytree by its structure and by the shape and dtype of each leaf.

    Two descriptions are equal where a program compiled for one pytree takes the other.

    Args:
        tree: a pytree of arrays or of ``jax.ShapeDtypeStruct``.

    Example:
        >>> import jax.numpy as jnp
        >>> Shapes({"x": jnp.zeros(2)}) == Shapes({"x": jnp.ones(2)}), Shapes(jnp.zeros(2)) == Shapes(jnp.zeros(3))
        (True, False)
    """

    def __init__(self, tree: Any):
        """Keeps the description as ``self.tree``, a pytree of ``jax.ShapeDtypeStruct``."""
        self.tree = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
        leaves, structure = jax.tree.flatten(self.tree)
        self._key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def __hash__(self):
        """Returns one number for equal descriptions."""
        return hash(self._key)

    def __eq__(self, other):
        """Compares structures, shapes and dtypes."""
        return isinstance(other, Shapes) and self._key == other._key
