"""A tree of sums over the scores of n examples: draws and updates that touch O(log n) numbers.

Level 0 is the leaves, one an example; the mass of a node of the next level is the sum of its ``fanout`` children's, and
so on up to a level of at most ``WIDEST`` nodes, which are the children of the root. The root itself is not kept: a draw
reads all its children anyway. Up to ``WIDEST`` examples these are the leaves, and the tree is a plain softmax.

A child is chosen in proportion to its mass among its siblings, with a random number of its own at every level, so that
every example can be drawn however many there are (one float32 uniform has 2^23 values and cannot tell more items
apart). A parent is always recomputed from its children: sums do not drift, and an index that occurs twice in a batch
does no harm.

A mass is kept as ``exp(log + heat * top)``, ``top`` being the largest loss below the node. Only differences of losses
are ever multiplied by the heat: nothing overflows, a heat of 0 or of 1e30 is exact, and losses that tie share evenly.

Nothing here stores the leaves: they are computed from what a sampler keeps. The levels above take at most about
``2 n / (fanout - 1)`` floats. With ``fanout = ceil(sqrt(n))`` this is the two-level block sampler; 8 is the default
everywhere.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Masses = Callable[[int, jax.Array], jax.Array]

WIDEST = 1024
"""Largest number of the root's children, unless the fanout is larger."""


class Nodes(NamedTuple):
    """Masses ``exp(log + heat * top)``.

    Attributes:
        top: float32, finite: the largest loss below each node.
        log: float32: log of the sum of ``exp(heat * (loss - top))`` times the prior; -inf is a mass of zero.
    """

    top: jax.Array
    log: jax.Array


def combine(nodes: Nodes, heat: jax.Array) -> Nodes:
    """The sum of masses along the last axis."""
    there = nodes.log > -jnp.inf
    top = jnp.where(there, nodes.top, -jnp.inf).max(-1)
    top = jnp.where(there.any(-1), top, 0.0)
    logs = relative(nodes, Nodes(top[..., None], jnp.zeros((), jnp.float32)), heat)
    return Nodes(top, jnp.log(jnp.exp(logs - _largest(logs)).sum(-1)) + _largest(logs)[..., 0])


def relative(nodes: Nodes, to: Nodes, heat: jax.Array) -> jax.Array:
    """Log of the ratio of masses; -inf where the mass is zero, and not relative to a mass of zero."""
    logs = nodes.log + heat * (nodes.top - to.top) - jnp.where(to.log > -jnp.inf, to.log, 0.0)
    return jnp.where(nodes.log > -jnp.inf, logs, -jnp.inf)


def sizes(n: int, fanout: int) -> tuple[int, ...]:
    """Number of nodes of each level, from the ``n`` leaves to the root's children."""
    counts = [n]
    while counts[-1] > max(WIDEST, fanout):
        counts.append(-(-counts[-1] // fanout))
    return tuple(counts)


def build(leaves: Nodes, heat: jax.Array, fanout: int) -> tuple[Nodes, ...]:
    """The levels above the leaves, in O(n).

    Args:
        leaves: ``[n]``.
        heat: scalar in [0, 1e30].
        fanout: children of a node below the root, at least 2.

    Returns:
        For each level its nodes, ``sizes(n, fanout)[1:]`` of them.
    """
    sums, below = [], leaves
    for _ in sizes(leaves.log.size, fanout)[1:]:
        padding = (0, -below.log.size % fanout)
        padded = Nodes(jnp.pad(below.top, padding), jnp.pad(below.log, padding, constant_values=-jnp.inf))
        below = combine(jax.tree.map(lambda x: x.reshape(-1, fanout), padded), heat)
        sums.append(below)
    return tuple(sums)


def refresh(
    sums: tuple[Nodes, ...], leaves: Callable[[jax.Array], Nodes], ids: jax.Array, heat: jax.Array, fanout: int
) -> tuple[Nodes, ...]:
    """Recomputes the ancestors of some leaves.

    Args:
        sums: the levels above the leaves.
        leaves: ids to the new leaves; ``log`` is -inf past the end.
        ids: int ``[B]``, leaves that changed; ids past the end change nothing.
        heat: scalar in [0, 1e30].
        fanout: children of a node below the root.

    Returns:
        The new levels, equal to :func:`build`'s.
    """
    new, nodes = [], ids
    for old in sums:
        nodes = nodes // fanout
        children = _children(nodes, fanout)
        below = take(new[-1], children) if new else leaves(children)
        new.append(jax.tree.map(lambda a, b, i=nodes: a.at[i].set(b, mode="drop"), old, combine(below, heat)))
    return tuple(new)


def take(nodes: Nodes, ids: jax.Array) -> Nodes:
    """The nodes ``ids``, of mass zero past the end."""
    inside = ids < nodes.log.size
    ids = jnp.where(inside, ids, 0)
    return Nodes(nodes.top[ids], jnp.where(inside, nodes.log[ids], -jnp.inf))


def draw(
    key: jax.Array, masses: Masses, sizes: tuple[int, ...], fanout: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Independent leaves, each in proportion to its mass: inverse transform among the children of every node.

    The root's children are taken as the cells of a square: first the row, then the cell.

    Args:
        key: a ``jax.random.key``.
        masses: ``(level, ids) -> log-masses``, additive over children; -inf past the end of a level.
        sizes: nodes of each level, see :func:`sizes`.
        fanout: children of a node below the root.
        batch_size: ``B``.

    Returns:
        ``(ids, log_masses)``, int32 and float32 ``[B]``. A leaf of mass zero is never drawn, unless all are.
    """
    *below, width = sizes
    uniforms = jax.random.uniform(key, (len(below) + 2, batch_size), jnp.float32)
    logs, side = masses(len(below), jnp.arange(width, dtype=jnp.int32)), math.isqrt(width - 1) + 1
    shares = jnp.pad(jnp.exp(logs - _largest(logs)), (0, -width % side)).reshape(-1, side)
    row = _choose(uniforms[-1], _ends(shares.sum(-1)))
    nodes = row * side + _choose(uniforms[-2], _ends(shares)[row])
    logs = logs[nodes]
    for level in reversed(range(len(below))):
        siblings = masses(level, _children(nodes, fanout))
        chosen = _choose(uniforms[level], _ends(jnp.exp(siblings - _largest(siblings))))
        # A barrier, or XLA computes the path anew for every number that is looked up by it: a batch's features, say.
        nodes = jax.lax.optimization_barrier(nodes * fanout + chosen)
        # Not masses(0, nodes): a second look at the leaves, which an update after the draw need not wait for, makes XLA
        # copy all of them.
        logs = jnp.where(jnp.arange(fanout) == chosen[:, None], siblings, -jnp.inf).max(-1)
    return nodes, logs


def draw_distinct(
    key: jax.Array, masses: Masses, sizes: tuple[int, ...], fanout: int, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""The ``k`` leaves of largest perturbed log-mass: Gumbel top-k without a Gumbel variable for every leaf.

    The largest of the perturbed log-masses ``log m_i + G_i`` below a node is Gumbel distributed around the node's own
    log-mass. So these are drawn for the root's children; from there down, the perturbed maxima of the children are
    drawn given that of their parent, and only the ``k`` largest of a level are followed. In this order the leaves are
    successive draws in proportion to the mass among those not drawn yet.

    Args:
        key: a ``jax.random.key``.
        masses: ``(level, ids) -> log-masses``, additive over children; -inf past the end of a level.
        sizes: nodes of each level, see :func:`sizes`.
        fanout: children of a node below the root.
        k: number of leaves.

    Returns:
        ``(ids, log_masses, perturbed)``, int32 and float32 ``[k]``, by descending ``perturbed``, which is -inf, and
        the id meaningless, where fewer than ``k`` leaves have a positive mass.

    References:
        Kool, van Hoof and Welling, "Stochastic beams and where to find them", ICML 2019, section 3 and appendix B.
    """
    *below, width = sizes

    def perturb(level, logs):
        own = jax.random.fold_in(key, level) if below else key
        return logs + jax.random.gumbel(own, logs.shape, jnp.float32)

    logs = masses(len(below), jnp.arange(width, dtype=jnp.int32))
    maxima, nodes = _top_k(perturb(len(below), logs), k)
    logs = logs[nodes]
    for level in reversed(range(len(below))):
        children = _children(nodes, fanout)
        logs = masses(level, children)
        perturbed = jnp.where(logs > -jnp.inf, _condition(perturb(level, logs), maxima[:, None]), -jnp.inf)
        maxima, chosen = _top_k(perturbed.reshape(-1), k)
        nodes, logs = children.reshape(-1)[chosen], logs.reshape(-1)[chosen]
    pad = functools.partial(jnp.pad, pad_width=(0, k - nodes.size))
    return pad(nodes), pad(logs, constant_values=-jnp.inf), pad(maxima, constant_values=-jnp.inf)


def _ends(shares):
    """Where each share ends when they are laid side by side; -1 for shares of zero, which are not to be reached."""
    size = shares.shape[-1]
    if size <= 64:  # a product, since XLA's cumsum of many short rows takes twice the time
        upper = jnp.triu(jnp.ones((size, size), shares.dtype))
        sums = jnp.matmul(shares, upper, precision=jax.lax.Precision.HIGHEST)
    else:
        sums = jnp.cumsum(shares, -1)
    return jnp.where(shares > 0, sums, -1.0)


def _choose(uniforms, ends):
    """The share that each uniform number falls into; the first where none is positive."""
    # The largest end, not the last: rounded sums are not monotone to the last bit. The least position that fits, not an
    # argmax: XLA does not vectorise that on a CPU.
    positions = jnp.arange(ends.shape[-1], dtype=jnp.int32)
    fits = ends > uniforms[:, None] * ends.max(-1, keepdims=True)
    chosen = jnp.where(fits, positions, positions.size).min(-1)
    return jnp.where(chosen < positions.size, chosen, 0)


def _condition(perturbed, maximum):
    """Moves Gumbel variables, row by row, to what they are given that their largest is ``maximum``."""
    gap = jnp.log(-jnp.expm1(perturbed - perturbed.max(-1, keepdims=True)))  # -inf for the largest
    excess = maximum - perturbed + gap
    return maximum - jnp.maximum(excess, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(excess)))


def _top_k(x, k):
    # Without barriers XLA merges what slices the results with what top_k lowers to, and sorts all of x on a CPU; with
    # one for both results it fails where it has no top_k.
    values, indices = jax.lax.top_k(x, min(k, x.size))
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(indices)


def _largest(logs):
    """The largest along the last axis, kept; 0 where all are -inf."""
    largest = logs.max(-1, keepdims=True)
    return jnp.where(largest > -jnp.inf, largest, 0.0)


def _children(nodes, fanout):
    return nodes[:, None] * fanout + jnp.arange(fanout, dtype=jnp.int32)
