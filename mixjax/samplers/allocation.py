"""Splits a batch among domains into exact integer counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_simplex, as_size
from mixjax.meshes import spec_of, varying_like, with_auto_axes
from mixjax.samplers.inverse_cdf import owners

__all__ = ["allocate", "counts_to_ids"]

# Up to this many domains, the greedy method alone is quicker than with a bisection before it.
_FEW = 32


def allocate(weights: ArrayLike, batch_size: int) -> jax.Array:
    r"""Splits a batch into integer counts so that the gradient estimate's variance is least.

    Minimises paper 000's eq. 14 over the integers: with ``weights`` ``q_d`` proportional to ``c_d v_d`` (eq. 16),

    .. math:: \min_n \sum_d q_d^2 / n_d \quad \text{s.t.} \quad \sum_d n_d = B, \; n_d \ge 1 \text{ where } q_d > 0.

    The sum is separable and convex. So it is optimal to give one example after another to the domain where it helps
    most, ``argmax q_d / sqrt(n_d (n_d + 1))``: the apportionment of Huntington and Hill ("equal proportions").

    At any moment the counts of this greedy method are ``q_d m`` for some multiplier ``m``, rounded at the geometric
    mean of the neighbouring integers. The counts of ``m = B - D`` cannot exceed the batch. So the greedy starts with
    these counts and takes at most ``2 D`` turns, whatever the batch size. For more than 32 domains ``m`` is bisected
    first, which leaves only ties: O(D log D).

    Args:
        weights: sampling weights ``[D]``, non-negative; normalised here.
        batch_size: ``B``, a Python integer of at least ``D`` and below 2^24.

    Returns:
        int32 ``[D]``: counts that sum to ``B``, at least 1 wherever the weight is positive and 0 elsewhere. Ties go to
        the domain of lower index. Runs under ``jit`` and ``vmap``.

    Raises:
        ValueError: ``batch_size`` below ``D`` or not below 2^24, or weights that are not a non-negative vector with a
            positive entry.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.samplers.allocate(jnp.array([0.98, 0.02, 0.0]), batch_size=8).tolist()
        [7, 1, 0]

    References:
        Paper 000, eq. 13-16 (real-valued). Huntington, "A new method of apportionment of representatives", 1921.
    """
    # float32 holds integers exactly up to 2^24.
    size, batch_size = np.size(weights), as_size("batch_size", batch_size)
    if not size <= batch_size < 2**24:
        raise ValueError(f"batch_size must be in [{size}, 2^24), one example per domain at least, got {batch_size}.")
    return with_auto_axes(lambda q: _allocate(q, batch_size), spec_of(weights))(as_simplex("weights", weights))


def _allocate(q, batch_size):
    """Allocates by normalised weights ``[D]``."""

    def rounded(multiplier):
        """Rounds ``multiplier * q`` up where it exceeds the geometric mean of its neighbours, and to at least 1."""
        x = q * multiplier
        below = jnp.floor(x)
        n = below.astype(jnp.int32) + (x > jnp.sqrt(below * (below + 1.0))).astype(jnp.int32)
        return jnp.where(q > 0, jnp.maximum(n, 1), 0)

    def total(counts):
        # With 64-bit integers switched on, a sum would be int64.
        return counts.sum(dtype=jnp.int32)

    def halve(bounds, _):
        low, high = bounds
        middle = 0.5 * (low + high)
        fits = total(rounded(middle)) <= batch_size
        return (jnp.where(fits, middle, low), jnp.where(fits, high, middle)), None

    def give(counts):
        n = counts.astype(jnp.float32)
        # A domain of weight 0 has a count of 0, which must not become 0 / 0; the others have a count of at least 1.
        gain = jnp.where(q > 0, q / jnp.sqrt(jnp.maximum(n * (n + 1.0), 1.0)), -1.0)
        left = batch_size - total(counts)
        if q.size <= _FEW:
            return counts.at[jnp.argmax(gain)].add(1)
        # After the bisection only ties are left. The first of them, as many as examples are left, get one each.
        places = jnp.arange(q.size, dtype=jnp.int32)
        rank = jnp.zeros_like(places).at[jnp.argsort(-gain, stable=True)].set(places)
        return counts + (rank < left).astype(jnp.int32)

    # The rounded counts of m = B - D never exceed B. The start is a little lower, since the product is rounded too.
    low = jnp.float32((batch_size - q.size) * (1.0 - 1e-6))
    if q.size > _FEW:
        # Weights that differ between devices make bounds that do, and the carry of a scan keeps its type.
        bounds = varying_like((low, jnp.float32(batch_size + q.size)), q)
        # 40 halvings leave bounds that are closer than float32 can tell numbers of the size of B apart.
        (low, _), _ = jax.lax.scan(halve, bounds, length=40)
    return jax.lax.while_loop(lambda counts: total(counts) < batch_size, give, rounded(low))


def counts_to_ids(counts: ArrayLike, batch_size: int) -> jax.Array:
    """Lists the domain ids of a batch with the given counts, in order of domain.

    Args:
        counts: integers ``[D]`` that sum to ``batch_size``.
        batch_size: ``B``, a Python integer.

    Returns:
        int32 ``[B]``.

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> mixjax.samplers.counts_to_ids(jnp.array([2, 0, 1]), batch_size=3).tolist()
        [0, 0, 2]
    """

    def listed(counts):
        return owners(jnp.cumsum(counts, dtype=jnp.int32), jnp.arange(batch_size, dtype=jnp.int32))

    return with_auto_axes(listed, PartitionSpec())(jnp.asarray(counts).astype(jnp.int32))
