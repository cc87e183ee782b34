"""Keeps sums over the scores of n examples in a tree, so that draws and updates touch O(log n) numbers.

*Levels.* Level 0 is the leaves, one an example. The mass of a node of the next level is the sum of the masses of its
``fanout`` children, and so on up to a level of at most ``WIDEST`` nodes, which are the children of the root. The root
itself is not kept: a draw reads all its children anyway. Up to ``WIDEST`` examples the root's children are the leaves,
and the tree is a plain softmax.

*Draws.* A child is chosen in proportion to its mass among its siblings, with a random number of its own at every level.
So every example can be drawn, however many there are. (One float32 uniform has 2^23 values and cannot tell more items
apart.)

*Updates.* A parent is always recomputed from its children. So sums do not drift, and an index that occurs twice in a
batch does no harm.

*Masses.* A mass is kept as ``exp(log + heat * top)``, where ``heat`` is the sampler's ``beta`` (0 for ``proportional``)
and ``top`` is the largest loss below the node. Only differences
of losses are ever multiplied by the heat. So nothing overflows, a heat of 0 or of 1e30 is exact, and losses that tie
share evenly.

*Memory.* Nothing here stores the leaves: a sampler computes them from what it keeps. The levels above take at most
about ``2 n / (fanout - 1)`` floats. With ``fanout = ceil(sqrt(n))`` there are two levels, blocks and their
examples.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixjax.samplers.inverse_cdf import choose, ends_of_rows
from mixjax.samplers.scored import lookups
from mixjax.samplers.scored.levels import Level, Nodes, sizes

__all__ = [
    "Masses",
    "build",
    "children_ids",
    "combine",
    "draw",
    "draw_distinct",
    "refresh",
    "relative",
    "take",
]

Masses = Callable[[int, jax.Array | None], jax.Array]
"""Maps a level and nodes of the level above to the log-masses ``[B, fanout]`` of their children, -inf past the end.

None in the nodes' place stands for the whole level. A node's mass is the sum of its children's.
"""


def combine(nodes: Nodes | Level, heat: jax.Array) -> Nodes:
    """Adds up masses along the last axis."""
    positive = nodes.log > -jnp.inf
    # The largest loss among nodes of some mass: a node of mass zero may have any loss. 0 where there is none.
    top = jnp.where(positive, nodes.top, -jnp.inf).max(-1)
    top = jnp.where(positive.any(-1), top, 0.0)
    logs = relative(nodes, Nodes(top[..., None], jnp.zeros((), jnp.float32)), heat)
    return Nodes(top, jnp.log(jnp.exp(logs - _largest(logs)).sum(-1)) + _largest(logs)[..., 0])


def relative(nodes: Nodes | Level, to: Nodes, heat: jax.Array) -> jax.Array:
    """Computes ``log(mass of nodes / mass of to)``; -inf where the former is zero.

    Where ``to`` is zero, its ``log`` counts as 0: the result is relative to ``exp(heat * to.top)``.
    """
    logs = nodes.log + heat * (nodes.top - to.top) - jnp.where(to.log > -jnp.inf, to.log, 0.0)
    return jnp.where(nodes.log > -jnp.inf, logs, -jnp.inf)


def build(leaves: Nodes, heat: jax.Array, fanout: int) -> tuple[Level, ...]:
    """Computes the levels above the leaves, in O(n).

    Args:
        leaves: ``[n]``.
        heat: scalar in [0, 1e30].
        fanout: children of a node below the root, at least 2.

    Returns:
        One :class:`Level` per level, of the sizes ``sizes(n, fanout)[1:]``.
    """
    sums, below = [], leaves
    for _ in sizes(leaves.log.size, fanout)[1:]:
        # Padding has a mass of zero, hence no influence on its siblings.
        padding = (0, -below.log.size % fanout)
        padded = Nodes(jnp.pad(below.top, padding), jnp.pad(below.log, padding, constant_values=-jnp.inf))
        below = combine(jax.tree.map(lambda x: x.reshape(-1, fanout), padded), heat)
        sums.append(Level(jnp.stack(below, -1)))
    return tuple(sums)


def refresh(
    sums: tuple[Level, ...], leaves: Callable[[jax.Array], Nodes | Level], ids: jax.Array, heat: jax.Array, fanout: int
) -> tuple[Level, ...]:
    """Recomputes the sums above some leaves, in O(B log n).

    Args:
        sums: the levels above the leaves.
        leaves: maps nodes of the level above the leaves to their new leaves ``[B, fanout]``; ``log`` is -inf past the
            end.
        ids: int ``[B]``, the leaves that changed; ids past the end change nothing.
        heat: scalar in [0, 1e30].
        fanout: children of a node below the root.

    Returns:
        The new levels, equal to :func:`build`'s.
    """
    new, nodes = [], ids
    for old in sums:
        nodes = nodes // fanout
        below = take(new[-1], nodes, fanout) if new else leaves(nodes)
        parents = combine(below, heat)
        # An ancestor that occurs twice is written twice, with equal values.
        new.append(Level(lookups.write(old.pairs, nodes, jnp.stack(parents, -1))))
    return tuple(new)


def take(level: Nodes | Level, parents: jax.Array | None, fanout: int) -> Nodes | Level:
    """Looks up the children ``[B, fanout]`` of some nodes, a mass of zero past the end; None takes the whole level."""
    if parents is None:
        return level
    if isinstance(level, Level):
        pairs = lookups.rows(level.pairs, parents, fanout)
        top, log = pairs[..., 0], pairs[..., 1]
    else:
        top, log = (lookups.rows(x, parents, fanout) for x in level)
    return Nodes(top, jnp.where(children_ids(parents, fanout) < len(level.log), log, -jnp.inf))


def children_ids(parents: jax.Array, fanout: int) -> jax.Array:
    """Returns the positions ``[B, fanout]`` of some nodes' children in their level, or past its end."""
    return parents[:, None] * fanout + jnp.arange(fanout, dtype=parents.dtype)[None]


def draw(
    key: jax.Array, masses: Masses, sizes: tuple[int, ...], fanout: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Draws leaves independently, each in proportion to its mass: inverse transform among the children of every node.

    Among the root's up to 1024 children the draw picks a row of a square and then a cell, so that it compares about
    2 * 32 numbers and not 1024.

    Args:
        key: a ``jax.random.key``.
        masses: see :data:`Masses`.
        sizes: numbers of nodes of each level, see :func:`sizes`.
        fanout: children of a node below the root.
        batch_size: ``B``.

    Returns:
        ``(ids, log_masses)``, int32 and float32 ``[B]``. A leaf of mass zero is never drawn, unless all are.
    """
    *below, width = sizes
    uniforms = jax.random.uniform(key, (len(below) + 2, batch_size), jnp.float32)
    logs = masses(len(below), None)
    # The square root, rounded up.
    side = math.isqrt(width - 1) + 1
    shares = jnp.pad(_shares(logs), (0, -width % side)).reshape(-1, side)
    row = choose(uniforms[-1], ends_of_rows(shares.sum(-1)))
    nodes = row * side + choose(uniforms[-2], ends_of_rows(shares)[row])
    logs = logs[nodes]
    for level in reversed(range(len(below))):
        siblings = masses(level, nodes)
        chosen = choose(uniforms[level], ends_of_rows(_shares(siblings)))
        # Without a barrier XLA recomputes the whole descent for every later lookup by these ids, such as the batch's
        # features.
        nodes = jax.lax.optimization_barrier(nodes * fanout + chosen)
        # Not masses(0, nodes): a second look at the leaves, which an update after the draw need not wait for, makes XLA
        # copy all of them.
        logs = jnp.where(jnp.arange(fanout)[None] == chosen[:, None], siblings, -jnp.inf).max(-1)
    return nodes, logs


def draw_distinct(
    key: jax.Array, masses: Masses, sizes: tuple[int, ...], fanout: int, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Draws the ``k`` leaves of largest perturbed log-mass: Gumbel top-k without a Gumbel variable for every leaf.

    The largest of the perturbed log-masses ``log m_i + G_i`` below a node is Gumbel distributed around the node's own
    log-mass. So these maxima are drawn for the root's children. From there down, the maxima of the children are drawn
    given the maximum of their parent, and only the ``k`` largest of a level are followed. In descending order the
    leaves are successive draws in proportion to the mass among those not drawn yet.

    Args:
        key: a ``jax.random.key``.
        masses: see :data:`Masses`.
        sizes: numbers of nodes of each level, see :func:`sizes`.
        fanout: children of a node below the root.
        k: number of leaves.

    Returns:
        ``(ids, log_masses, perturbed)``, int32, float32 and float32 ``[k]``, in descending order of ``perturbed``. If
        fewer than ``k`` leaves have a positive mass, the last entries have ``perturbed = -inf`` and meaningless ids.

    References:
        Kool, van Hoof and Welling, "Stochastic beams and where to find them", ICML 2019, section 3 and appendix B.
    """
    *below, _ = sizes

    def perturb(level, logs):
        # With a single level the draw equals plain Gumbel top-k with this key.
        own = jax.random.fold_in(key, level) if below else key
        return logs + jax.random.gumbel(own, logs.shape, jnp.float32)

    logs = masses(len(below), None)
    maxima, nodes = _top_k(perturb(len(below), logs), k)
    logs = logs[nodes]
    # Only the k largest maxima of a level can have one of the k largest leaves below them.
    for level in reversed(range(len(below))):
        logs = masses(level, nodes)
        # Children of a parent of mass zero would be NaN.
        perturbed = jnp.where(logs > -jnp.inf, _condition(perturb(level, logs), maxima[:, None]), -jnp.inf)
        maxima, chosen = _top_k(perturbed.reshape(-1), k)
        nodes, logs = nodes[chosen // fanout] * fanout + chosen % fanout, logs.reshape(-1)[chosen]
    pad = functools.partial(jnp.pad, pad_width=(0, k - nodes.size))
    return pad(nodes), pad(logs, constant_values=-jnp.inf), pad(maxima, constant_values=-jnp.inf)


def _shares(logs):
    """Returns masses in proportion to their largest sibling's, so that none overflows."""
    return jnp.exp(logs - _largest(logs))


def _condition(perturbed, maximum):
    """Shifts each row of Gumbel variables to a draw from their distribution, given that the largest is ``maximum``."""
    # gap is -inf at the row's largest entry, which therefore becomes the maximum exactly.
    gap = jnp.log(-jnp.expm1(perturbed - perturbed.max(-1, keepdims=True)))
    # -log(exp(-maximum) - exp(-max(perturbed)) + exp(-perturbed)), in the stable form of the reference's appendix B.
    excess = maximum - perturbed + gap
    return maximum - jnp.maximum(excess, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(excess)))


def _top_k(x, k):
    # On a CPU, XLA otherwise fuses later slices of the results into the top_k and sorts all of x instead. Each result
    # has a barrier of its own: on backends without a native top_k, one barrier around both fails to compile.
    values, indices = jax.lax.top_k(x, min(k, x.size))
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(indices)


def _largest(logs):
    """Returns the largest along the last axis, kept; 0 where all are -inf, lest differences be NaN."""
    largest = logs.max(-1, keepdims=True)
    return jnp.where(largest > -jnp.inf, largest, 0.0)
