"""Converts the random keys in a pytree to numbers that can be written to a file, and back.

A key of :mod:`jax.random` is an array of a type of its own, which cannot be written to a file. Its words can: they are
unsigned integers. To make a key of its words again, one has to know the generator.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["KeyWords", "bits", "with_keys", "with_words"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyWords:
    """Stands for an array of keys in a pytree, and holds the words of the keys.

    Args:
        words: unsigned integers, ``[..., words of one key]``.
        generator: the name of the keys' generator. It is part of the pytree's structure, not an array, so that it
            passes through compiled programs beside the words.
    """

    words: jax.Array
    generator: str = dataclasses.field(metadata={"static": True})


def bits(array: jax.Array) -> jax.Array:
    """Returns an array that can be written to a file: the words of random keys, any other array as it is.

    Args:
        array: keys or numbers.

    Returns:
        Numbers.

    Example:
        >>> bits(jax.random.key(7)).tolist(), bits(jnp.ones(2)).tolist()
        ([0, 7], [1.0, 1.0])
    """
    return jax.random.key_data(array) if _is_key(array) else array


def with_words(tree: Any) -> Any:
    """Replaces the keys in a pytree by :class:`KeyWords`, and Python's numbers by arrays.

    Args:
        tree: a pytree of arrays, keys and numbers.

    Returns:
        A pytree whose leaves can all be written to a file.

    Example:
        >>> tree = with_words({"key": jax.random.key(7), "step": 0})
        >>> jax.tree.leaves(tree)[0].tolist(), with_keys(tree)["key"] == jax.random.key(7)
        ([0, 7], Array(True, dtype=bool))
    """

    def replace(leaf):
        # Python's numbers become arrays here, so that a carry has the same types before and after a segment.
        array = jnp.asarray(leaf)
        if not _is_key(array):
            return array
        return KeyWords(jax.random.key_data(array), str(jax.random.key_impl(array)))

    return jax.tree.map(replace, tree)


def with_keys(tree: Any) -> Any:
    """Makes keys again of the :class:`KeyWords` in a pytree.

    Args:
        tree: as :func:`with_words` returned it.

    Returns:
        The pytree with keys.
    """

    def replace(leaf):
        return jax.random.wrap_key_data(leaf.words, impl=leaf.generator) if isinstance(leaf, KeyWords) else leaf

    return jax.tree.map(replace, tree, is_leaf=lambda leaf: isinstance(leaf, KeyWords))


def _is_key(array):
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
