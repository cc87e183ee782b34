"""Draws on the device what a live plan of lag 1 draws on the host, so that a whole run is one compiled program.

Counts and row weights are those of :class:`mixjax.live.Plan`. The order of a domain's rows is a random one of each
epoch, but another one than the plan's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mixjax import samplers

__all__ = ["DrawState", "Drawn", "draw", "shuffled_rows", "start_draws"]


class DrawState(NamedTuple):
    """Holds where the draws of a run stand.

    Attributes:
        carry: the rows that each domain is owed.
        drawn: int32 ``[D]``, rows drawn of each domain so far.
        waiting: float32 ``[D]``, loss weight that waits for rows of its domain.
    """

    carry: samplers.CarryState
    drawn: jax.Array
    waiting: jax.Array


class Drawn(NamedTuple):
    """Holds a batch.

    Attributes:
        domain_ids: int32 ``[B]``, ascending.
        row_numbers: int32 ``[B]``, how many rows of its domain were drawn before each row.
        row_weights: float32 ``[B]``, factors of the rows' losses in the objective.
        counts: int32 ``[D]``.
    """

    domain_ids: jax.Array
    row_numbers: jax.Array
    row_weights: jax.Array
    counts: jax.Array


def start_draws(num_domains: int) -> DrawState:
    """Makes the state before the first batch."""
    zeros = jnp.zeros(num_domains, jnp.float32)
    return DrawState(samplers.start_carry(num_domains), zeros.astype(jnp.int32), zeros)


def draw(
    state: DrawState, sampling_weights: jax.Array, loss_weights: jax.Array | None, batch_size: int
) -> tuple[Drawn, DrawState]:
    """Draws a batch.

    Args:
        state: where the draws stand.
        sampling_weights: ``q``, ``[D]``.
        loss_weights: ``c``, ``[D]``, which wait for rows of their domain; None where ``c`` is ``q`` and every row
            weighs ``1 / B``.
        batch_size: ``B``.

    Returns:
        The batch, and the state after it.
    """
    counts, carry = samplers.carry(state.carry, sampling_weights, batch_size)
    ends = jnp.cumsum(counts)
    places = jnp.arange(batch_size, dtype=jnp.int32)
    # A row's domain is the number of domains that end before it. `jnp.repeat` compiles to a scatter, which is slower.
    domain_ids = (places[:, None] >= ends[None, :]).sum(axis=1, dtype=jnp.int32)
    row_numbers = places + (state.drawn - (ends - counts))[domain_ids]
    if loss_weights is None:
        row_weights, waiting = jnp.full(batch_size, 1.0 / batch_size), state.waiting
    else:
        mass = state.waiting + loss_weights
        row_weights = (mass / jnp.maximum(counts, 1))[domain_ids]
        waiting = jnp.where(counts > 0, 0.0, mass)
    return Drawn(domain_ids, row_numbers, row_weights, counts), DrawState(carry, state.drawn + counts, waiting)


def shuffled_rows(key: jax.Array, sizes: Sequence[int], num_rows: int) -> jax.Array:
    """Shuffles the rows of each domain anew for every epoch.

    Args:
        key: a random key.
        sizes: rows of each domain, Python integers.
        num_rows: length of the result, the most rows that may be drawn of a domain.

    Returns:
        int32 ``[D, num_rows]``: which row of its domain is the ``k``-th one drawn.
    """

    # Whole epochs of every domain, so that the last one drawn is not an order of its first rows alone.
    places = jnp.arange(num_rows + max(sizes), dtype=jnp.int32)[None, :]
    each = jnp.array(sizes, jnp.int32)[:, None]
    order = jax.random.bits(key, (len(sizes), places.size))
    # One sort by epoch and random number, since a permutation of each domain and epoch takes seconds to compile.
    _, _, rows = jax.lax.sort((places // each, order, places % each), num_keys=2, dimension=1)
    return rows[:, :num_rows]
