"""Random domain ids with ``E[n_d] = B q_d``, by inverse transform: O(D + B log D), no Gumbel per category.

The distribution function is one of integers, ``q_d`` in units of 2^-30 and at least one unit where ``q_d > 0``: every
such domain can be drawn, which sums and uniforms in float32 do not ensure from 10^5 domains on.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.checks import as_simplex


def systematic(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Domain ids at ``n`` evenly spaced quantiles with one random offset: each count is within 1 of ``n q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in ascending order; marginally, a draw chosen at random is ``d`` with probability ``q_d``.

    Raises:
        ValueError: weights that are not a non-negative vector with a positive entry.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> mixjax.samplers.systematic(jax.random.key(0), jnp.array([0.5, 0.25, 0.25]), 8).tolist()
        [0, 0, 0, 0, 1, 1, 2, 2]
    """
    cdf = _integer_cdf(weights)
    offset = jax.random.randint(key, (), 0, cdf[-1], jnp.uint32)
    return _find(cdf, _quantiles(cdf, n, offset)[:-1])


def stratified(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Domain ids at one uniform quantile in each of ``n`` equal strata: counts within 2 of ``n q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in ascending order.

    Raises:
        ValueError: weights that are not a non-negative vector with a positive entry.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> mixjax.samplers.stratified(jax.random.key(0), jnp.array([0.5, 0.25, 0.25]), 8).tolist()
        [0, 0, 0, 0, 1, 1, 2, 2]
    """
    cdf = _integer_cdf(weights)
    edges = _quantiles(cdf, n)
    return _find(cdf, jax.random.randint(key, (n,), edges[:-1], edges[1:], jnp.uint32))


def multinomial(key: jax.Array, weights: ArrayLike, n: int) -> jax.Array:
    """Independent domain ids, each ``d`` with probability ``q_d``.

    Args:
        key: a ``jax.random.key``.
        weights: sampling weights ``q``, ``[D]``, non-negative; normalised here.
        n: number of draws, a Python integer.

    Returns:
        int32 ``[n]`` in the order drawn.

    Raises:
        ValueError: weights that are not a non-negative vector with a positive entry.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> ids = mixjax.samplers.multinomial(jax.random.key(0), jnp.array([0.0, 1.0]), 4)
        >>> ids.tolist()
        [1, 1, 1, 1]
    """
    cdf = _integer_cdf(weights)
    return _find(cdf, jax.random.randint(key, (n,), 0, cdf[-1], jnp.uint32))


def _integer_cdf(weights):
    q = as_simplex("weights", weights)
    units = jnp.maximum(jnp.round(q * 2.0**30), jnp.where(q > 0, 1.0, 0.0))
    return jnp.cumsum(units.astype(jnp.uint32), dtype=jnp.uint32)


def _quantiles(cdf, n, offset=0):
    """``(i * total + offset) // n`` for ``i = 0 .. n``, in 32 bits: quotients exactly, what is left in float32."""
    total, i = cdf[-1], jnp.arange(n + 1)
    rest = (total % n) / n * i + (offset % n) / n
    return i.astype(jnp.uint32) * (total // n) + offset // n + rest.astype(jnp.uint32)


def _find(cdf, points):
    points = jnp.minimum(points, cdf[-1] - 1)
    return jnp.searchsorted(cdf, points, side="right").astype(jnp.int32)
