"""Computes roots of sums of squares that neither overflow nor vanish, and helpers that all norms share.

A float32 gradient of 1e-25 or 1e30 is an ordinary number, but its square is not. Each sum of squares is therefore taken
of entries that are divided by the largest one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["anywhere", "as_float", "scale_of", "scaled_norm", "wide"]


def scaled_norm(leaves: list[jax.Array]) -> jax.Array:
    """Returns the Euclidean norm over the last axes of several arrays, in the arrays' own dtype.

    Args:
        leaves: float arrays ``[*batch, n]`` that share ``[*batch]``; ``n`` may differ.

    Returns:
        ``[*batch]``; inf or NaN where an entry is.

    Example:
        >>> scaled_norm([jnp.array([[3e30], [0.0]]), jnp.array([[4e30, 0.0], [0.0, 2.0]])])
        Array([5.e+30, 2.e+00], dtype=float32)
    """
    largest = jnp.stack([jnp.max(jnp.abs(leaf), axis=-1, initial=0.0) for leaf in leaves]).max(axis=0)
    scale = scale_of(largest)
    squares = sum(jnp.square(leaf / scale[..., None]).sum(axis=-1) for leaf in leaves)
    # inf / inf is NaN, but the norm of an infinite gradient is to be inf.
    return jnp.where(jnp.isinf(largest), largest, scale * jnp.sqrt(squares))


def scale_of(largest: jax.Array) -> jax.Array:
    """Returns the number that entries are divided by before they are squared.

    It is the largest entry, with two exceptions. Where the largest entry is below the normal floats, which XLA may
    flush to zero, the scale is 1. A finite scale is at most 0.125 / tiny, tiny being the smallest normal float: XLA may
    multiply with the scale's inverse, and the inverse of a larger number would itself be below the normal floats.

    Args:
        largest: the largest absolute value among the entries, any shape.

    Returns:
        The scale, positive, of the same shape.
    """
    tiny = jnp.finfo(largest.dtype).tiny
    vanishes, is_infinite = largest < tiny, jnp.isinf(largest)
    finite = jnp.minimum(largest, 0.125 / tiny)
    return jnp.where(vanishes, 1.0, jnp.where(is_infinite, largest, finite))


def as_float(x: jax.Array) -> jax.Array:
    """Converts half-precision arrays and integers to float32; float32 and float64 arrays stay as they are."""
    return x.astype(wide(x.dtype))


def wide(*dtypes: jnp.dtype) -> jnp.dtype:
    """Returns float64 if one of the dtypes is that, else float32, also where JAX is told not to promote dtypes."""
    return jnp.dtype("float64" if jnp.dtype("float64") in dtypes else "float32")


@jax.custom_batching.custom_vmap
def anywhere(flags: jax.Array) -> jax.Array:
    """Returns one flag that says whether any of ``flags`` is set; under ``vmap``, any in the whole batch.

    Without the rule for ``vmap`` below, a ``lax.cond`` on the flag would become a ``select`` that computes both of its
    branches for every element of the batch.
    """
    return flags.any()


# pyright takes the decorated object for a plain function, which has no `def_vmap`.
@anywhere.def_vmap  # pyright: ignore[reportFunctionMemberAccess]
def _(axis_size, batched, flags):
    return anywhere(flags), False
