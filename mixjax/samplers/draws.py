"""Draws random domain ids in proportion to weights, by inverse transform in O(D + n log D).

The expected count of domain d is ``n q_d``, with ``n`` draws and normalised weights ``q``.

The cumulative distribution is one of integers: ``q_d`` in units of 2^-30, and at least one unit where ``q_d > 0``. So
every such domain can be drawn, which sums and uniform numbers in float32 do not ensure from 10^5 domains on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, as_size
from mixjax.meshes import with_auto_axes
from mixjax.samplers import inverse_cdf

__all__ = ["choose", "multinomial", "stratified", "systematic"]


def systematic(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Draws domain ids at ``n`` evenly spaced quantiles with one random offset: each count is within 1 of ``n q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in ascending order. One of them, picked at random, is ``d`` with probability ``q_d``.

    Raises:
        ValueError: weights that are not a vector; or, where they are concrete, an entry that is negative or not finite,
            or none that is positive.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> mixjax.samplers.systematic(jax.random.key(0), jnp.array([0.5, 0.25, 0.25]), 8).tolist()
        [0, 0, 0, 0, 1, 1, 2, 2]
    """
    n = as_size("n", n)

    def points(key, cdf):
        offset = jax.random.randint(key, (), 0, cdf[-1], jnp.uint32)
        return _quantiles(cdf, n, offset)[:-1]

    return _drawn(key, weights, points)


def stratified(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Draws domain ids at one uniform quantile in each of ``n`` equal strata: each count is within 2 of ``n q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in ascending order.

    Raises:
        ValueError: weights that are not a vector; or, where they are concrete, an entry that is negative or not finite,
            or none that is positive.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> mixjax.samplers.stratified(jax.random.key(0), jnp.array([0.5, 0.25, 0.25]), 8).tolist()
        [0, 0, 0, 0, 1, 1, 2, 2]
    """
    n = as_size("n", n)

    def points(key, cdf):
        edges = _quantiles(cdf, n)
        return jax.random.randint(key, (n,), edges[:-1], edges[1:], jnp.uint32)

    return _drawn(key, weights, points)


def multinomial(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Draws independent domain ids, each ``d`` with probability ``q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in the order drawn.

    Raises:
        ValueError: weights that are not a vector; or, where they are concrete, an entry that is negative or not finite,
            or none that is positive.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> ids = mixjax.samplers.multinomial(jax.random.key(0), jnp.array([0.0, 1.0]), 4)
        >>> ids.tolist()
        [1, 1, 1, 1]
    """
    n = as_size("n", n)
    return _drawn(key, weights, lambda key, cdf: jax.random.randint(key, (n,), 0, cdf[-1], jnp.uint32))


def choose(key: jax.Array, weights: ArrayLike) -> jax.Array:
    """Draws one index in proportion to weights, by one float32 uniform number; see :func:`multinomial` for batches.

    A uniform number has 2^23 values, so this serves up to thousands of indices. For more indices, or for many draws
    between which few weights change, use :func:`mixjax.samplers.proportional`.

    Args:
        key: a ``jax.random.key``.
        weights: ``[n]``, non-negative; need not be normalised.

    Returns:
        An int32 scalar; never an index of weight zero, unless all are zero.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mixjax.samplers import draws
        >>> draws.choose(jax.random.key(0), jnp.array([0.0, 2.0, 0.0])).tolist()
        1
    """

    def chosen(key, weights):
        return inverse_cdf.choose(jax.random.uniform(key, dtype=jnp.float32), inverse_cdf.ends_of(weights))

    return with_auto_axes(chosen, PartitionSpec())(key, jnp.asarray(weights).astype(jnp.float32))


def _drawn(key, weights, points):
    """Draws the domains into which ``points(key, cdf)`` fall, which are integers below the last entry of ``cdf``."""

    def draw(key, weights):
        cdf = _integer_cdf(weights)
        return _find(cdf, points(key, cdf))

    return with_auto_axes(draw, PartitionSpec())(key, jnp.asarray(weights))


def _integer_cdf(weights):
    """Returns the cumulative sum of the normalised weights, uint32 ``[D]``, in units of 2^-30."""
    q = as_simplex("weights", weights)
    # At least one unit for a tiny weight. 2^30 units and not 2^32, so that these extra ones fit into 32 bits too.
    units = jnp.maximum(jnp.round(q * 2.0**30), jnp.where(q > 0, 1.0, 0.0))
    return jnp.cumsum(units.astype(jnp.uint32), dtype=jnp.uint32)


def _quantiles(cdf, n, offset: ArrayLike = 0):
    """Returns ``(i * total + offset) // n`` for ``i = 0 .. n``."""
    total, offset = cdf[-1], jnp.asarray(offset).astype(jnp.uint32)
    i = jnp.arange(n + 1, dtype=jnp.uint32)
    # The product does not fit into 32 bits. So the quotients are multiplied as integers. What the remainders add is at
    # most n, which float32 holds.
    share, own = ((x % n).astype(jnp.float32) / n for x in (total, offset))
    rest = share * i.astype(jnp.float32) + own
    return i * (total // n) + offset // n + rest.astype(jnp.uint32)


def _find(cdf, points):
    # Rounding of the remainders can lead past the last unit.
    return inverse_cdf.owners(cdf, jnp.minimum(points, cdf[-1] - 1))
