"""Draws examples of given domains, with replacement or once per epoch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mixjax.checks import as_ids, as_size
from mixjax.meshes import spec_of, with_auto_axes

__all__ = [
    "EpochState",
    "Partition",
    "extend_epochs",
    "partition",
    "split",
    "start_epochs",
    "with_replacement",
    "without_replacement",
]

# Rounds of the Feistel network. With fewer, domains of two to eight examples would not be shuffled evenly.
_ROUNDS = 24


class Partition(NamedTuple):
    """Groups examples by domain: domain ``d`` owns ``order[starts[d] : starts[d] + sizes[d]]``.

    :func:`partition` makes it of NumPy arrays, so that sizes are known where shapes depend on them. For the functions
    that draw, any field may be replaced by a traced array, such as ``order`` by a shuffle that differs between runs.

    Attributes:
        order: int32 ``[N]``, example indices.
        starts: int32 ``[D]``, where each domain begins in ``order``.
        sizes: int32 ``[D]``, number of examples of each domain.
    """

    order: ArrayLike
    starts: ArrayLike
    sizes: ArrayLike


class EpochState(NamedTuple):
    """Holds where each domain stands in its current epoch.

    Attributes:
        key: uint32 ``[_ROUNDS]``, random words that decide all shuffles, drawn from the key of :func:`start_epochs`.
            They are plain numbers, so that every checkpoint format takes them.
        epoch: int32 ``[D]``, number of epochs that are over.
        position: int32 ``[D]``, examples of the current epoch already drawn.
    """

    key: jax.Array
    epoch: jax.Array
    position: jax.Array


def partition(domain_ids: ArrayLike, num_domains: int | None = None) -> Partition:
    """Groups examples by domain, once, on the host.

    Args:
        domain_ids: integers of any type, ``[N]``, the domain of each example, concrete.
        num_domains: ``D``; the largest id plus one if left out.

    Returns:
        A :class:`Partition`, in which the examples of a domain keep their order.

    Raises:
        ValueError: ids out of range, or a domain without examples (it could never be drawn from).

    Example:
        >>> import mixjax
        >>> groups = mixjax.samplers.partition([1, 0, 1, 1])
        >>> groups.order.tolist(), groups.sizes.tolist()
        ([1, 0, 2, 3], [1, 3])
    """
    ids = np.asarray(domain_ids)
    if ids.ndim != 1 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"domain_ids must be a non-empty integer vector, got {ids.dtype} of shape {ids.shape}.")
    # As Python integers, which do not wrap where the ids' own type ends.
    first, last = int(ids.min()), int(ids.max())
    num_domains = last + 1 if num_domains is None else as_size("num_domains", num_domains)
    if first < 0 or last >= num_domains:
        raise ValueError(f"domain_ids must be in [0, {num_domains}), got {first} to {last}.")
    # Counting refuses unsigned integers of 64 bits, which all fit after the check above.
    sizes = np.bincount(ids.astype(np.int64), minlength=num_domains)
    if not sizes.all():
        raise ValueError(f"domains {np.flatnonzero(sizes == 0).tolist()} have no examples.")
    starts = np.cumsum(sizes) - sizes
    order = np.argsort(ids, kind="stable")
    return Partition(order=order.astype(np.int32), starts=starts.astype(np.int32), sizes=sizes.astype(np.int32))


def split(groups: Partition, fraction: float) -> tuple[Partition, Partition]:
    """Splits every domain in two: the first ``fraction`` of its examples, and the rest.

    Paper 000's algorithm 1 trains on the first part (its ``rho``) and estimates on the second. Examples are taken in
    the order of ``groups``: shuffle the data first where the order means something.

    Args:
        groups: a concrete :class:`Partition`.
        fraction: in (0, 1); each part keeps at least one example of every domain.

    Returns:
        Two partitions that share ``order``.

    Raises:
        ValueError: ``fraction`` outside (0, 1), or a domain of fewer than two examples.

    Example:
        >>> import mixjax
        >>> train, held_out = mixjax.samplers.split(mixjax.samplers.partition([0] * 10), 0.8)
        >>> train.sizes.tolist(), held_out.starts.tolist(), held_out.sizes.tolist()
        ([8], [8], [2])
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be in (0, 1), got {fraction}.")
    sizes = np.asarray(groups.sizes)
    if (sizes < 2).any():
        raise ValueError(f"domains {np.flatnonzero(sizes < 2).tolist()} have fewer than two examples to split.")
    first = np.clip(np.round(fraction * sizes), 1, sizes - 1).astype(np.int32)
    train = groups._replace(sizes=first)
    rest = groups._replace(starts=np.asarray(groups.starts) + first, sizes=sizes - first)
    return train, rest


def with_replacement(key: jax.Array, groups: Partition, domain_ids: ArrayLike) -> jax.Array:
    """Draws one example of each given domain, independently and uniformly: the i.i.d. sampling of paper 000's eq. 14.

    Args:
        key: a ``jax.random.key``.
        groups: the examples by domain.
        domain_ids: integers of any type, in ``[0, D)``, ``[B]``.

    Returns:
        int32 ``[B]``: indices of examples. Each draw takes one uniform number in float32, which has 2^23 values, so a
        domain may have up to 2^23 examples.

    Raises:
        TypeError: ids that are not integers.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> groups = mixjax.samplers.partition([0, 1, 0, 1])
        >>> index = mixjax.samplers.with_replacement(jax.random.key(0), groups, jnp.array([0, 1, 1]))
        >>> (index % 2).tolist()
        [0, 1, 1]
    """
    ids, groups = as_ids("domain_ids", domain_ids), _widened(groups)

    def draw(key, ids, groups):
        size = groups.sizes[ids]
        # float32 by name: with 64-bit numbers switched on, the same key would give other draws.
        uniforms = jax.random.uniform(key, ids.shape, jnp.float32)
        offset = jnp.floor(uniforms * size.astype(jnp.float32)).astype(jnp.int32)
        # The product may be rounded up to the size.
        return groups.order[groups.starts[ids] + jnp.minimum(offset, size - 1)]

    return with_auto_axes(draw, spec_of(ids))(key, ids, groups)


def _widened(groups):
    """Returns a partition's fields as int32 arrays of JAX."""
    return Partition(*(as_ids(f"groups.{name}", field) for name, field in zip(Partition._fields, groups, strict=True)))


def start_epochs(key: jax.Array, num_domains: int) -> EpochState:
    """Makes the state of :func:`without_replacement` before the first draw.

    Args:
        key: a ``jax.random.key``; decides every shuffle of every domain.
        num_domains: ``D``.

    Returns:
        An :class:`EpochState` of epoch 0 with nothing drawn; see :func:`without_replacement` for an example.
    """
    # Two arrays of zeros: a state that holds one buffer twice cannot be donated.
    epoch, position = jnp.zeros(num_domains, jnp.int32), jnp.zeros(num_domains, jnp.int32)
    return EpochState(jax.random.bits(key, (_ROUNDS,), jnp.uint32), epoch, position)


def extend_epochs(state: EpochState, before: Partition, after: Partition) -> EpochState:
    """Carries epochs over to a data set with more domains, or with more or fewer examples in some domains.

    A domain whose number of examples stays goes on with its epoch: each of its examples is drawn once before any is
    drawn again. A domain whose number changes begins its next epoch, since a shuffle is one of all its examples. New
    domains come last and begin their first. A domain is removed by never drawing from it again; it keeps its number,
    which decides its shuffles.

    Args:
        state: where the old domains stand.
        before: the examples by domain until now, concrete.
        after: the examples by domain from now on, concrete, with at least as many domains.

    Returns:
        The state for ``after``.

    Raises:
        ValueError: fewer domains than before, or a state of another number of domains.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> from mixjax import samplers
        >>> before, after = samplers.partition([0, 0, 0, 1, 1]), samplers.partition([0, 0, 0, 1, 1, 1, 2])
        >>> state = samplers.start_epochs(jax.random.key(0), 2)._replace(position=jnp.array([2, 1]))
        >>> state = samplers.extend_epochs(state, before, after)
        >>> state.epoch.tolist(), state.position.tolist()
        ([0, 1, 0], [2, 0, 0])
    """
    old, new = np.asarray(before.sizes), np.asarray(after.sizes)
    if old.size != state.position.size or new.size < old.size:
        raise ValueError(
            f"before must have the state's {state.position.size} domains and after at least as many, got {old.size} "
            f"and {new.size}."
        )
    changed = jnp.asarray(old != new[: old.size])
    # A domain that has drawn nothing yet has no epoch to give up.
    begins = changed & (state.position > 0)
    padding = (0, new.size - old.size)
    epoch = jnp.pad(state.epoch + begins.astype(jnp.int32), padding)
    position = jnp.pad(jnp.where(begins, 0, state.position), padding)
    return EpochState(state.key, epoch, position)


def without_replacement(state: EpochState, groups: Partition, domain_ids: ArrayLike) -> tuple[jax.Array, EpochState]:
    """Draws from each domain without replacement, reshuffling a domain when its epoch is over.

    A domain's shuffle is a keyed permutation (a Feistel network with cycle walking), evaluated only where it is needed.
    So the state is O(D), a draw costs one sort of the batch's ids, and ``vmap`` over runs is cheap. The shuffles are
    pseudo-random permutations: each goes exactly once through the domain, but not every one of the ``n!`` occurs.

    Args:
        state: where each domain stands; see :func:`start_epochs`.
        groups: the examples by domain.
        domain_ids: integers of any type, in ``[0, D)``, ``[B]``. More ids of a domain than it has examples run into its
            next epochs.

    Returns:
        ``(indices, state)``: int32 ``[B]`` and the state after the draw.

    Raises:
        TypeError: ids that are not integers.

    Example:
        >>> import jax, jax.numpy as jnp, mixjax
        >>> groups = mixjax.samplers.partition([0, 0, 0, 1])
        >>> state = mixjax.samplers.start_epochs(jax.random.key(0), 2)
        >>> index, state = mixjax.samplers.without_replacement(state, groups, jnp.array([0, 0, 0, 1]))
        >>> sorted(index.tolist()), state.epoch.tolist()
        ([0, 1, 2, 3], [1, 1])

    References:
        Black and Rogaway, "Ciphers with arbitrary finite domains", 2002 (cycle walking over a Feistel network).
    """
    ids, groups = as_ids("domain_ids", domain_ids), _widened(groups)

    def draw(state, ids, groups):
        # The rank of a draw among the batch's draws of its domain is the draw's place in the sorted batch, less the
        # place where the domain begins there.
        by_domain = jnp.argsort(ids, stable=True)
        sorted_ids = ids[by_domain]
        first = jnp.searchsorted(sorted_ids, sorted_ids, side="left").astype(jnp.int32)
        places = jnp.arange(len(ids), dtype=jnp.int32)
        rank = jnp.zeros_like(places).at[by_domain].set(places - first)
        drawn = jax.ops.segment_sum(jnp.ones_like(ids), ids, groups.sizes.size)
        place, size = state.position[ids] + rank, groups.sizes[ids]
        shuffled = _permute(state.key, ids, state.epoch[ids] + place // size, place % size, size)
        position = state.position + drawn
        moved = EpochState(state.key, state.epoch + position // groups.sizes, position % groups.sizes)
        return groups.order[groups.starts[ids] + shuffled], moved

    return with_auto_axes(draw, (spec_of(ids), jax.tree.map(spec_of, state)))(state, ids, groups)


def _permute(round_keys, domain, epoch, index, size):
    """Applies to ``index`` a permutation of ``range(size)`` that the keys, domain and epoch fix, elementwise."""
    tweak = _mix(_mix(domain.astype(jnp.uint32) + 1) ^ epoch.astype(jnp.uint32))
    # The network permutes range(4^half), which holds the domain: two halves of equally many bits. clz counts the
    # leading zeros of 32 bits.
    bits = jnp.maximum(32 - jax.lax.clz(jnp.maximum(size - 1, 1)), 2)
    half = ((bits + 1) // 2).astype(jnp.uint32)
    low = (jnp.uint32(1) << half) - 1

    def encrypt(x):
        left, right = x >> half, x & low
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right ^ round_key ^ tweak) & low)
        return (left << half) | right

    size = size.astype(jnp.uint32)
    # Cycle walking: what lands outside the domain is encrypted again, until it is inside. This takes few turns, since
    # the network's range is at most four times the size.
    walk = jax.lax.while_loop(
        lambda x: jnp.any(x >= size), lambda x: jnp.where(x >= size, encrypt(x), x), encrypt(index.astype(jnp.uint32))
    )
    return walk.astype(jnp.int32)


def _mix(x):
    """Mixes 32 bits, bijectively: two rounds of multiply and xor-shift."""
    for shift, factor in ((16, 0x9E3779B1), (15, 0x85EBCA77)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
