"""Looks up a few entries of long arrays, quickly on a CPU too."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mixjax.meshes import varying_like

__all__ = ["LARGEST_LOOP", "LONG", "elements", "rows", "write"]

LONG = 120_000
"""Number of entries from which on an array is long: XLA splits what reads 512 KiB, and a look-up writes some too."""

LARGEST_LOOP = 2**12
"""Largest number of look-ups for which a loop is quicker."""


def rows(x: jax.Array, parents: jax.Array, fanout: int) -> jax.Array:
    """Looks up the children of some nodes, ``x[p * fanout : (p + 1) * fanout]`` for each parent ``p``.

    Args:
        x: ``[n, ...]``, the nodes of a level, ``n >= fanout``.
        parents: int ``[B]``, nodes of the level above.
        fanout: children of a node.

    Returns:
        ``[B, fanout, ...]``; entries past the end of the level have no meaning.
    """
    return _rows(fanout)(x, parents)


def elements(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Looks up ``x[ids]``; ids past the end read the last entry.

    Args:
        x: ``[n]``.
        ids: int ``[B]``, non-negative.
    """
    return _elements(x, ids)


def write(x: jax.Array, ids: jax.Array, new: jax.Array) -> jax.Array:
    """Writes ``x[ids] = new``; ids past the end write nothing, and one of several equal ids wins.

    Args:
        x: ``[n, ...]``.
        ids: int ``[B]``, non-negative.
        new: ``[B, ...]``, of the type of ``x``.
    """
    return _write(x, ids, new)


def _by_loop(loop, at_once):
    """Makes a function that calls ``loop`` for long arrays on a CPU, and ``at_once`` elsewhere; both are the same."""

    # XLA on a CPU takes a gather or a scatter for a read of all of x, and from 512 KiB on splits it over threads.
    # Starting these takes several times as long as the few entries. A loop of small slices it compiles as a whole and
    # leaves to one thread.
    @jax.custom_batching.custom_vmap
    def by_platform(*args):
        return jax.lax.platform_dependent(*args, cpu=loop, default=at_once)

    # Slices of a batch are gathers, and a loop of these would be slow.
    @by_platform.def_vmap
    def _(_, batched, *args):
        return jax.vmap(at_once, in_axes=[0 if is_batched else None for is_batched in batched])(*args), True

    quick = jax.custom_jvp(by_platform)

    # A function with a rule for vmap has no reverse mode of its own. That of at_once also knows which of several equal
    # ids has won.
    @quick.defjvp
    def _(primals, tangents):
        return quick(*primals), jax.jvp(at_once, primals, tangents)[1]

    # Called outside of jit, a loop would be compiled anew each time.
    compiled = jax.jit(quick, inline=True)

    def look_up(x, ids, *new):
        is_quick = x.size >= LONG and 0 < ids.size <= LARGEST_LOOP
        return (compiled if is_quick else at_once)(x, ids, *new)

    return look_up


@functools.cache
def _rows(fanout):
    """Makes the function behind :func:`rows`, once for each fanout."""

    def row(x, parent):
        first = parent * fanout
        # Near the end the slice begins earlier, and is moved back into place.
        start = jnp.minimum(first, len(x) - fanout)
        found = jax.lax.dynamic_slice_in_dim(x, start, fanout)
        padded = jnp.concatenate([found, jnp.zeros_like(found)])
        return jax.lax.dynamic_slice_in_dim(padded, first - start, fanout)

    def gathered(x, parents):
        ids = parents[:, None] * fanout + jnp.arange(fanout, dtype=parents.dtype)[None]
        return x[jnp.minimum(ids, len(x) - 1)]

    return _by_loop(lambda x, parents: jax.lax.map(functools.partial(row, x), parents), gathered)


def _element(x, i):
    return jax.lax.dynamic_index_in_dim(x, jnp.minimum(i, len(x) - 1), keepdims=False)


def _gathered(x, ids):
    return x[jnp.minimum(ids, len(x) - 1)]


def _written_in_turn(x, ids, new):
    def one(b, x):
        place = jnp.minimum(ids[b], len(x) - 1)
        old = jax.lax.dynamic_index_in_dim(x, place, keepdims=False)
        kept = jnp.where(ids[b] < len(x), new[b], old)
        return jax.lax.dynamic_update_index_in_dim(x, kept, place, 0)

    return jax.lax.fori_loop(0, len(ids), one, varying_like(x, ids, new))


def _written(x, ids, new):
    return x.at[ids].set(new, mode="drop")


_elements = _by_loop(lambda x, ids: jax.lax.map(functools.partial(_element, x), ids), _gathered)
_write = _by_loop(_written_in_turn, _written)
