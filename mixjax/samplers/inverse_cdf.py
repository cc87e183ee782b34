"""Chooses in proportion to shares by inverse transform: lays the shares end to end and sees where a point falls.

Two kinds of shares are in use. Sums of float32 shares are rounded, so :func:`choose` has guards. Sums of integer shares
are exact, so a plain binary search is enough for :func:`owners`.
"""

import jax
import jax.numpy as jnp

__all__ = ["choose", "ends_of", "ends_of_rows", "owners"]

# Rows of up to this many shares are short enough for a product with a triangle of ones.
_SHORT = 64


def ends_of(shares: jax.Array) -> jax.Array:
    """Computes where each share ends when the shares are laid end to end.

    Args:
        shares: float32 ``[..., n]``, non-negative.

    Returns:
        float32 ``[..., n]``, and -1 for a share of zero, so that no point falls into it.
    """
    return _without_zeros(shares, jnp.cumsum(shares, -1))


def ends_of_rows(shares: jax.Array) -> jax.Array:
    """Computes the same as :func:`ends_of`, up to rounding, and quicker for many short rows.

    Args:
        shares: float32 ``[rows, n]``, non-negative.

    Returns:
        float32 ``[rows, n]``, and -1 for a share of zero.
    """
    size = shares.shape[-1]
    if size > _SHORT:
        return ends_of(shares)
    # A product with a triangle of ones, since XLA's cumsum of many short rows takes twice the time.
    upper = jnp.triu(jnp.ones((size, size), shares.dtype))
    return _without_zeros(shares, jnp.matmul(shares, upper, precision=jax.lax.Precision.HIGHEST))


def choose(uniforms: jax.Array, ends: jax.Array) -> jax.Array:
    """Finds the share that each uniform number falls into.

    Args:
        uniforms: float32 ``[...]``, in [0, 1).
        ends: float32 ``[..., n]`` or ``[n]``, from :func:`ends_of`.

    Returns:
        int32 ``[...]``: positions of shares; 0 where no share is positive.
    """
    # Everything is broadcast by hand, since JAX with jax_numpy_rank_promotion="raise" does not do it.
    shape = (*uniforms.shape, ends.shape[-1])
    # The largest end, not the last one: rounded sums are not monotone to the last bit.
    points = uniforms * jnp.broadcast_to(ends.max(-1), uniforms.shape)
    fits = jnp.broadcast_to(ends, shape) > points[..., None]
    # The least position that fits, not an argmax, which XLA does not vectorise on a CPU.
    positions = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    chosen = jnp.where(fits, positions, shape[-1]).min(-1)
    return jnp.where(chosen < shape[-1], chosen, 0)


def owners(ends: jax.Array, points: jax.Array) -> jax.Array:
    """Finds the share that each point falls into, among shares that are integers.

    Args:
        ends: int ``[n]``, the cumulative sum of the shares; a share of zero owns no point.
        points: int ``[...]``, of the same type, in ``[0, ends[-1])``.

    Returns:
        int32 ``[...]``: positions of shares.
    """
    return jnp.searchsorted(ends, points, side="right").astype(jnp.int32)


def _without_zeros(shares, ends):
    return jnp.where(shares > 0, ends, -1.0)
