"""Splits batches among domains by counts that carry over: what rounding withholds from a domain it gets later."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from mixjax.checks import as_size, check_range, check_shape, is_concrete
from mixjax.meshes import varying_like, with_auto_axes
from mixjax.samplers import host_carried

__all__ = ["CarryState", "carry", "start_carry"]


class CarryState(NamedTuple):
    """Holds the rows that each domain is owed: ``whole + part / 2^32``, which sum to zero over the domains.

    Two 32-bit numbers in place of one of 64 bits, which JAX has in its 64-bit mode only.

    Attributes:
        whole: int32 ``[D]``.
        part: uint32 ``[D]``.
    """

    whole: jax.Array
    part: jax.Array


def start_carry(num_domains: int) -> CarryState:
    """Makes the state of :func:`carry` before the first batch, when no domain is owed anything.

    Args:
        num_domains: ``D``, at most 65,536.

    Raises:
        ValueError: ``num_domains`` out of range.
    """
    check_range("num_domains", num_domains, 1, 2**16)
    return CarryState(jnp.zeros(num_domains, jnp.int32), jnp.zeros(num_domains, jnp.uint32))


def carry(state: CarryState, weights: ArrayLike, batch_size: int) -> tuple[jax.Array, CarryState]:
    r"""Splits a batch into counts whose sums over the batches stay within a few rows of the sums of ``B q``.

    A domain is owed what earlier batches withheld from it, and ``B q_d`` of this batch. It gets the largest-remainder
    rounding of that, never less than 0, ties going to the domain of lower index. The rest is carried to the next batch.
    So a weight of 1e-6 gets its row once in ``1e6 / B`` batches, where :func:`mixjax.samplers.allocate` gives it one
    in each. ``D`` may exceed ``B``. Rows that a domain was owed when its weight became 0 are still drawn.

    *Bound.* For any sequence of weights, the sum of a domain's counts is less than 1 above the sum of ``B q_d``, and at
    most ``H_D - 1`` below it, with ``H_D = 1 + 1/2 + ... + 1/D``: 1.6 rows for D = 7, 4.9 for 200, 7.2 for 2,000.

    *Proof.* The rounding is the same as giving ``B`` rows one after the other, each to the domain that is owed most at
    that moment. Before each of these rows the domains together are owed at least one row. So the one that is owed most
    is owed more than 0, and no carry falls to -1.

    For the other side, let ``A`` be the ``k`` domains that are owed most after a batch, ``a`` the mean of their carries
    ``x``, and ``m_k`` the largest value that this mean can ever have. Carries sum to zero, so ``m_D = 0``. If every row
    of the batch went into ``A``, then the sum over ``A`` has not grown, since its shares of the batch are at most
    ``B``. Otherwise some ``e`` outside ``A`` got a row. At that moment ``e`` was owed no less than any domain of ``A``
    is owed afterwards, so ``x_e >= a - 1``. The mean over ``A`` and ``e`` is then at least ``a - 1/(k+1)``, which gives
    ``m_k <= m_{k+1} + 1/(k+1)``. Summed over ``k``, this is ``m_1 <= H_D - 1``.

    No rule that does not know later weights does better at ``B = 1``: spread the weight evenly over the domains that
    have not been served yet, and the last of them is owed just that much.

    Args:
        state: what is owed, from :func:`start_carry` or an earlier call.
        weights: sampling weights ``q``, ``[D]``, on the simplex up to float32's rounding; used in float32.
        batch_size: ``B``, a Python integer in [1, 2^24).

    Returns:
        ``(counts, state)``: int32 ``[D]`` counts that sum to ``B``, and what is owed afterwards. All arithmetic after
        ``B q`` is in integers, so carries sum to zero exactly, and every machine computes the same counts. Runs under
        ``jit``, ``vmap``, ``scan`` and ``shard_map``.

    Raises:
        ValueError: shapes that differ or a ``batch_size`` out of range; where they are concrete, weights that are
            negative or not finite, or do not sum to one. (Of traced weights, what they miss is the largest weight's.)

    Example:
        >>> import jax.numpy as jnp, mixjax
        >>> state, q = mixjax.samplers.start_carry(3), jnp.array([0.5, 0.375, 0.125])
        >>> drawn = []
        >>> for _ in range(4):
        ...     counts, state = mixjax.samplers.carry(state, q, batch_size=2)
        ...     drawn.append(counts.tolist())
        >>> drawn                                                     # 4, 3 and 1 of 8 rows
        [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]]
    """
    check_shape("weights", weights, state.whole.shape, "one entry per domain")
    batch_size = as_size("batch_size", batch_size)
    if is_concrete(weights):
        host_carried.fixed_point(weights, batch_size)
    check_range("batch_size", batch_size, 1, 2**24 - 1)
    weights = jax.lax.stop_gradient(jnp.asarray(weights, jnp.float32))
    return with_auto_axes(_split, PartitionSpec())(state, weights, jnp.int32(batch_size))


def _split(state, weights, batch_size):
    state = varying_like(state, weights)
    owed = _add(state, _shares(weights, batch_size))
    # A domain's rows are whole, whole - 1, ... rows above the rest. All rows above ``level`` are drawn, and of those
    # at the level the ones of largest remainder.
    level = jax.lax.while_loop(
        lambda level: _taken(owed, level) > batch_size,
        lambda level: level + 1,
        varying_like(jnp.int32(0), owed),
    )
    left = batch_size - _taken(owed, level)
    # Sorted by remainder, largest first; the sort is stable, so ties go to the domain of lower index.
    order = jnp.lexsort((~owed.part, owed.whole < level))
    rank = jnp.zeros_like(owed.whole).at[order].set(jnp.arange(owed.whole.size, dtype=jnp.int32))
    counts = jnp.maximum(owed.whole - level, 0) + (rank < left).astype(jnp.int32)
    return counts, CarryState(owed.whole - counts, owed.part)


def _taken(owed, level):
    return jnp.maximum(owed.whole - level, 0).sum(dtype=jnp.int32)


def _shares(weights, batch_size):
    """Returns ``B q`` as whole rows and parts of 2⁻³² rows, which sum to ``B``: the largest makes up for the rest."""
    rows = batch_size.astype(jnp.float32) * weights
    whole = jnp.floor(rows)
    # Scaling by a power of two is exact, and so is the difference.
    high = jnp.floor((rows - whole) * jnp.float32(2**16))
    low = jnp.rint(((rows - whole) * jnp.float32(2**16) - high) * jnp.float32(2**16))
    shares = _from_halves(whole.astype(jnp.int32), high.astype(jnp.uint32), low.astype(jnp.uint32))

    # Halves of 16 bits, so that the sums over up to 2^16 domains fit into 32 bits.
    total = _from_halves(
        shares.whole.sum(dtype=jnp.int32),
        (shares.part >> 16).sum(dtype=jnp.uint32),
        (shares.part & jnp.uint32(0xFFFF)).sum(dtype=jnp.uint32),
    )
    borrow = (total.part > 0).astype(jnp.int32)
    missing = CarryState(batch_size - total.whole - borrow, jnp.uint32(0) - total.part)
    is_largest = jnp.arange(weights.size) == jnp.argmax(weights)
    filled = _add(shares, missing)
    return jax.tree.map(lambda new, old: jnp.where(is_largest, new, old), filled, shares)


def _from_halves(whole, high, low):
    """Puts a number together from its whole part and two halves of its fraction, which may overflow."""
    high = high + (low >> 16)
    part = ((high & jnp.uint32(0xFFFF)) << 16) | (low & jnp.uint32(0xFFFF))
    return CarryState(whole + (high >> 16).astype(jnp.int32), part)


def _add(a, b):
    part = a.part + b.part
    # Unsigned sums wrap around; one that is smaller than an addend has lost a one to the next word.
    overflow = (part < b.part).astype(jnp.int32)
    return CarryState(a.whole + b.whole + overflow, part)
