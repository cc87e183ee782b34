"""Random domain ids with ``E[n_d] = B q_d``, by inverse transform: O(B log D), no Gumbel per category."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.rules.base import as_simplex


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
    points = (jnp.arange(n) + jax.random.uniform(key)) / n
    return _inverse_cdf(weights, points)


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
    points = (jnp.arange(n) + jax.random.uniform(key, (n,))) / n
    return _inverse_cdf(weights, points)


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
    return _inverse_cdf(weights, jax.random.uniform(key, (n,)))


def _inverse_cdf(weights, points):
    q = as_simplex("weights", weights)
    # A long cumsum is summed in blocks, so it may dip, or step by a rounding error where the weight is zero.
    cdf = jax.lax.cummax(jnp.where(q > 0, jnp.cumsum(q), 0.0))
    ids = jnp.searchsorted(cdf, jnp.clip(points, 0.0, 1.0) * cdf[-1], side="right")
    last = q.size - 1 - jnp.argmax(jnp.flip(q) > 0)  # rounding must not reach a domain of weight zero at the end
    return jnp.minimum(ids, last).astype(jnp.int32)
