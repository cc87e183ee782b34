"""A tree of log-sums over the scores of n examples: draws and updates that touch O(log n) numbers.

Level 0 is the leaves, one log-score an example; every node of the next level is the logsumexp of its ``fanout``
children, up to a single root, the log of all scores' sum. A child is chosen in proportion to its mass among its
siblings, with a random number of its own at every level: no maximum over all examples is needed, nothing overflows,
and every example can be drawn however many there are (one float32 uniform has 2^23 values and cannot tell more items
apart). A parent is always recomputed from its children, so sums do not drift and an index that occurs twice in a batch
does no harm.

Nothing here stores the leaves: they are computed from what a sampler keeps, by a function ``level, ids -> log-masses``
(-inf past the end). The levels above take ``n / (fanout - 1)`` floats. With ``fanout = ceil(sqrt(n))`` this is the
two-level block sampler; with 8, the default everywhere, it was the quickest from 10^3 to 10^7 examples.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Masses = Callable[[int, jax.Array], jax.Array]


def logsumexp(x: jax.Array) -> jax.Array:
    """``log(sum(exp(x)))`` along the last axis; -inf where all are -inf."""
    top = x.max(-1)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return top + jnp.log(jnp.exp(x - top[..., None]).sum(-1))


def num_levels(n: int, fanout: int) -> int:
    """Number of levels above the leaves; at least one."""
    levels = 1
    while fanout**levels < n:
        levels += 1
    return levels


def build(leaves: jax.Array, fanout: int) -> tuple[jax.Array, ...]:
    """The levels above the leaves, in O(n).

    Args:
        leaves: log-scores ``[n]``; -inf is a score of zero.
        fanout: children of a node, at least 2.

    Returns:
        One float32 array a level, of ``ceil(n / fanout)``, ..., 1 entries.
    """
    sums, below = [], leaves
    for _ in range(num_levels(leaves.size, fanout)):
        padded = jnp.pad(below, (0, -below.size % fanout), constant_values=-jnp.inf)
        below = logsumexp(padded.reshape(-1, fanout))
        sums.append(below)
    return tuple(sums)


def refresh(sums: tuple[jax.Array, ...], leaves: Masses, ids: jax.Array, fanout: int) -> tuple[jax.Array, ...]:
    """Recomputes the ancestors of some leaves.

    Args:
        sums: the levels above the leaves.
        leaves: the new leaves; called with level 0.
        ids: int ``[B]``, leaves that changed; ids past the end change nothing.
        fanout: children of a node.

    Returns:
        The new levels. Equal to :func:`build`'s up to rounding.
    """
    new, nodes = [], ids
    for level, old in enumerate(sums):
        nodes = nodes // fanout
        children = _children(nodes, fanout)
        below = leaves(0, children) if level == 0 else take(new[-1], children)
        new.append(old.at[nodes].set(logsumexp(below), mode="drop"))
    return tuple(new)


def take(masses: jax.Array, ids: jax.Array) -> jax.Array:
    """``masses[ids]``, and -inf for ids past the end."""
    inside = ids < masses.size
    return jnp.where(inside, masses[jnp.where(inside, ids, 0)], -jnp.inf)


def draw(
    key: jax.Array, masses: Masses, levels: int, fanout: int, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Independent leaves, each in proportion to its mass: inverse transform among the children of every node.

    Args:
        key: a ``jax.random.key``.
        masses: ``(level, ids) -> log-masses``, additive over children; -inf past the end of a level.
        levels: number of levels above the leaves.
        fanout: children of a node.
        batch_size: ``B``.

    Returns:
        ``(ids, log_masses)``, int32 and float32 ``[B]``. A leaf of mass zero is never drawn, unless all are.
    """
    uniforms = jax.random.uniform(key, (levels, batch_size))
    nodes = jnp.zeros(batch_size, jnp.int32)
    for level in reversed(range(levels)):
        logs = masses(level, _children(nodes, fanout))
        shares = jnp.exp(logs - jnp.maximum(logs.max(-1, keepdims=True), jnp.finfo(jnp.float32).min))
        ends = jnp.cumsum(shares, -1)
        reached = (ends > uniforms[level][:, None] * ends[:, -1:]) & (shares > 0)
        chosen = jnp.argmax(reached, -1).astype(jnp.int32)
        nodes = nodes * fanout + chosen
    # Not masses(0, nodes): a second look at the leaves, which an update after the draw need not wait for, makes XLA
    # copy all of them.
    return nodes, jnp.where(jnp.arange(fanout) == chosen[:, None], logs, -jnp.inf).max(-1)


def draw_distinct(
    key: jax.Array, masses: Masses, root: jax.Array, levels: int, fanout: int, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""The ``k`` leaves of largest perturbed log-mass: Gumbel top-k without a Gumbel variable for every leaf.

    The largest of the perturbed log-masses ``log m_i + G_i`` below a node is Gumbel distributed around the node's own
    log-mass. So from the root down, the perturbed maxima of the children are drawn given that of their parent, and only
    the ``k`` largest of a level are followed. In this order the leaves are successive draws in proportion to the mass
    among those not drawn yet.

    Args:
        key: a ``jax.random.key``.
        masses: ``(level, ids) -> log-masses``, additive over children; -inf past the end of a level.
        root: log-mass of all, a scalar.
        levels: number of levels above the leaves.
        fanout: children of a node.
        k: number of leaves.

    Returns:
        ``(ids, log_masses, perturbed)``, int32 and float32 ``[k]``, by descending ``perturbed``, which is -inf, and
        the id meaningless, where fewer than ``k`` leaves have a positive mass.

    References:
        Kool, van Hoof and Welling, "Stochastic beams and where to find them", ICML 2019, section 3 and appendix B.
    """
    root_key, key = jax.random.split(key)
    nodes, maxima = jnp.zeros(1, jnp.int32), root[None] + jax.random.gumbel(root_key, (1,))
    for level in reversed(range(levels)):
        children = _children(nodes, fanout)
        logs = masses(level, children)
        perturbed = logs + jax.random.gumbel(jax.random.fold_in(key, level), logs.shape)
        perturbed = jnp.where(logs > -jnp.inf, _condition(perturbed, maxima[:, None]), -jnp.inf)
        maxima, chosen = jax.lax.top_k(perturbed.reshape(-1), min(k, perturbed.size))
        nodes, logs = children.reshape(-1)[chosen], logs.reshape(-1)[chosen]
    pad = functools.partial(jnp.pad, pad_width=(0, k - nodes.size))
    return pad(nodes), pad(logs, constant_values=-jnp.inf), pad(maxima, constant_values=-jnp.inf)


def _condition(perturbed, maximum):
    """Moves Gumbel variables, row by row, to what they are given that their largest is ``maximum``."""
    gap = jnp.log(-jnp.expm1(perturbed - perturbed.max(-1, keepdims=True)))  # -inf for the largest
    excess = maximum - perturbed + gap
    return maximum - jnp.maximum(excess, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(excess)))


def _children(nodes, fanout):
    return nodes[:, None] * fanout + jnp.arange(fanout, dtype=jnp.int32)
