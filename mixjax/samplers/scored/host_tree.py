""":mod:`mixjax.samplers.scored.tree` in NumPy, operation by operation, so that the same key gives the same draws.

Siblings are stored as a row: a level is ``[ceil(nodes / fanout), fanout]``, filled up with masses of zero. So where the
functions of ``tree`` look up the children of nodes one by one, these take rows, and ``masses(level, nodes)`` is
``[B, fanout]``, the log-masses of the nodes' children, which are at that level; the root's children are all rows of
theirs. Callers silence NumPy's warnings on infinities.
"""

import math
from collections.abc import Callable

import numpy as np

from mixjax.samplers.scored import threefry
from mixjax.samplers.scored.tree import Nodes

Masses = Callable[[int, np.ndarray], np.ndarray]
_NONE = np.float32(-np.inf)


def as_rows(flat: np.ndarray, fanout: int, fill: float) -> np.ndarray:
    """A copy of ``[n]`` as float32 ``[ceil(n / fanout), fanout]``."""
    rows = np.full((-(-len(flat) // fanout), fanout), fill, np.float32)
    rows.reshape(-1)[: len(flat)] = flat
    return rows


def nodes_as_rows(nodes: Nodes, fanout: int) -> Nodes:
    """:func:`as_rows` of a level, masses of zero past its end."""
    return Nodes(as_rows(nodes.top, fanout, 0.0), as_rows(nodes.log, fanout, -np.inf))


def combine(nodes: Nodes, heat: np.float32) -> Nodes:
    """The sums of the rows' masses; ``[rows]``."""
    top = np.where(nodes.log > _NONE, nodes.top, _NONE).max(-1)
    top = np.where(top > _NONE, top, np.float32(0))
    logs = relative(nodes, top[:, None], np.float32(0), heat)
    largest = _largest(logs)
    return Nodes(top, np.log(np.exp(logs - largest).sum(-1)) + largest[:, 0])


def relative(nodes: Nodes, top: np.ndarray, log: np.ndarray, heat: np.float32) -> np.ndarray:
    """Log of the ratio of masses to ``exp(log + heat * top)``, ``log`` being finite; -inf where the mass is zero."""
    return np.where(nodes.log > _NONE, nodes.log + heat * (nodes.top - top) - log, _NONE)


def build(leaves: Nodes, levels: int, heat: np.float32) -> tuple[Nodes, ...]:
    """The levels above the leaves, which are rows, in O(n)."""
    sums, below = [], leaves
    for _ in range(levels):
        below = nodes_as_rows(combine(below, heat), below.log.shape[1])
        sums.append(below)
    return tuple(sums)


def root(rows: Nodes, heat: np.float32) -> tuple[np.float32, np.float32]:
    """The sum of the masses of a whole level: its ``top`` and ``log``."""
    top, log = combine(Nodes(*(x.reshape(1, -1) for x in rows)), heat)
    return top[0], log[0]


def refresh(
    sums: tuple[Nodes, ...], leaves: Callable[[np.ndarray | slice], Nodes], ids: np.ndarray, heat: np.float32
) -> list[tuple]:
    """Recomputes in place the ancestors of some leaves.

    Args:
        sums: the levels above the leaves.
        leaves: rows to their leaves.
        ids: ``[B]``, leaves that changed.
        heat: scalar in [0, 1e30].

    Returns:
        What it overwrote: ``(array, positions, old)``, as :func:`write` returns it.
    """
    undo = []
    for level, above in enumerate(sums):
        ids = ids // above.log.shape[1]
        below = Nodes(*(x.take(ids, 0) for x in sums[level - 1])) if level else leaves(ids)
        undo += [write(rows, ids, new) for rows, new in zip(above, combine(below, heat), strict=True)]
    return undo


def write(rows: np.ndarray, ids: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``rows.flat[ids] = new`` in place; returns ``(array, positions, old)`` to undo it."""
    flat = rows.reshape(-1)
    old = flat[ids]
    flat[ids] = new
    return flat, ids, old


def draw(
    key: np.ndarray, masses: Masses, sizes: tuple[int, ...], fanout: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Independent leaves: ``(ids, log_masses)``, each ``[B]``."""
    *below, width = sizes
    uniforms = threefry.uniform(key, (len(below) + 2, batch_size, 1))
    logs, side = _top(masses, sizes, fanout), math.isqrt(width - 1) + 1
    shares = as_rows(np.exp(logs - _largest(logs)), side, 0.0)
    row = _choose(uniforms[-1], _ends(shares.sum(-1)))
    nodes = row * side + _choose(uniforms[-2], _ends(shares)[row])
    logs = logs[nodes]
    for level in reversed(range(len(below))):
        siblings = masses(level, nodes)
        chosen = _choose(uniforms[level], _ends(np.exp(siblings - _largest(siblings))))
        nodes = nodes * fanout + chosen
        logs = siblings[np.arange(batch_size), chosen]
    return nodes, logs


def draw_distinct(
    key: np.ndarray, masses: Masses, sizes: tuple[int, ...], fanout: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``k`` leaves of largest perturbed log-mass: ``(ids, log_masses, perturbed)``, each ``[k]``, descending."""
    *below, width = sizes
    descent = np.arange(len(below) + 1)[::-1]
    counts = [width]  # numbers drawn, level after level, all of them at once
    for _ in below:
        counts.append(min(counts[-1], k) * fanout)
    keys = np.repeat(threefry.fold_in(key, descent) if below else key[None], counts, axis=0)
    counters = np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])
    gumbels = threefry.to_gumbel(threefry.random_bits(keys, counters))
    first, *gumbels = np.split(gumbels, np.cumsum(counts)[:-1])
    logs = _top(masses, sizes, fanout)
    perturbed = logs + first
    nodes = _drawn(perturbed, k)
    logs, maxima = logs[nodes], perturbed[nodes]
    for level, gumbel in zip(descent[1:], gumbels, strict=True):
        logs = masses(level, nodes)
        perturbed = logs + gumbel[: logs.size].reshape(logs.shape)
        perturbed = np.where(logs > _NONE, _condition(perturbed, maxima[:, None]), _NONE).ravel()
        chosen = _drawn(perturbed, k)
        nodes = nodes[chosen // fanout] * fanout + chosen % fanout
        logs, maxima = logs.ravel()[chosen], perturbed[chosen]
    if missing := k - nodes.size:
        nodes = np.pad(nodes, (0, missing))
        logs, maxima = (np.pad(x, (0, missing), constant_values=-np.inf) for x in (logs, maxima))
    return nodes, logs, maxima


def top_k(x: np.ndarray, k: int) -> np.ndarray:
    """Positions of the ``k`` largest, descending; equal ones in their order, as in ``jax.lax.top_k``."""
    candidates = np.flatnonzero(x >= np.partition(x, -k)[-k]) if k < x.size else np.arange(x.size)
    return candidates[np.argsort(-x[candidates], kind="stable")[:k]]


def _drawn(perturbed, k):
    chosen = top_k(perturbed, k)
    return chosen[perturbed[chosen] > _NONE]


def _top(masses, sizes, fanout):
    *below, width = sizes
    return masses(len(below), np.arange(-(-width // fanout))).ravel()[:width]


def _ends(shares):
    return np.where(shares > 0, np.cumsum(shares, -1), np.float32(-1))


def _choose(uniforms, ends):
    return (ends > uniforms * ends.max(-1, keepdims=True)).argmax(-1)


def _condition(perturbed, maximum):
    gap = np.log(-np.expm1(perturbed - perturbed.max(-1, keepdims=True)))
    excess = maximum - perturbed + gap
    return maximum - np.maximum(excess, np.float32(0)) - np.log1p(np.exp(-np.abs(excess)))


def _largest(logs):
    largest = logs.max(-1, keepdims=True)
    return np.where(largest > _NONE, largest, np.float32(0))
