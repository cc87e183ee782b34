""":mod:`mixjax.samplers.tree` in NumPy, operation by operation, so that the same key gives the same draws.

Siblings are stored as a row: a level is ``[ceil(nodes / fanout), fanout]``, filled up with masses of zero. So where the
functions of ``tree`` look up the children of nodes one by one, these take rows, and ``masses(level, nodes)`` is
``[B, fanout]``, the log-masses of the nodes' children, which are at that level. Callers silence NumPy's warnings on
infinities.
"""

from collections.abc import Callable

import numpy as np

from mixjax.samplers import threefry
from mixjax.samplers.tree import Nodes

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
    sums = []
    for _ in range(levels):
        below = sums[-1] if sums else leaves
        sums.append(nodes_as_rows(combine(below, heat), below.log.shape[1]))
    return tuple(sums)


def refresh(
    sums: tuple[Nodes, ...], leaves: Callable[[np.ndarray], Nodes], ids: np.ndarray, heat: np.float32
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


def draw(key: np.ndarray, masses: Masses, levels: int, fanout: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent leaves: ``(ids, log_masses)``, each ``[B]``."""
    uniforms = threefry.uniform(key, (levels, batch_size, 1))
    nodes = np.zeros(batch_size, np.intp)
    for level in reversed(range(levels)):
        logs = masses(level, nodes)
        shares = np.exp(logs - _largest(logs))
        ends = np.cumsum(shares, -1)
        chosen = ((ends > uniforms[level] * ends[:, -1:]) & (shares > 0)).argmax(-1)
        nodes = nodes * fanout + chosen
    return nodes, logs[np.arange(batch_size), chosen]


def draw_distinct(
    key: np.ndarray, masses: Masses, root: np.float32, levels: int, fanout: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``k`` leaves of largest perturbed log-mass: ``(ids, log_masses, perturbed)``, each ``[k]``, descending."""
    root_key, key = threefry.split(key)
    descent = np.arange(levels)[::-1]
    sizes = [1]  # numbers drawn: for the root, then level after level, all of them at once
    for _ in descent:
        sizes.append(min(sizes[-1], k) * fanout)
    keys = np.repeat(np.concatenate([root_key[None], threefry.fold_in(key, descent)]), sizes, axis=0)
    counters = np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes])
    gumbels = threefry.to_gumbel(threefry.random_bits(keys, counters))
    first, *gumbels = np.split(gumbels, np.cumsum(sizes)[:-1])
    nodes, maxima = np.zeros(1, np.intp), root + first
    for level, gumbel in zip(descent, gumbels, strict=True):
        logs = masses(level, nodes)
        perturbed = logs + gumbel[: logs.size].reshape(logs.shape)
        perturbed = np.where(logs > _NONE, _condition(perturbed, maxima[:, None]), _NONE).ravel()
        chosen = top_k(perturbed, k)
        chosen = chosen[perturbed[chosen] > _NONE]
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


def _condition(perturbed, maximum):
    gap = np.log(-np.expm1(perturbed - perturbed.max(-1, keepdims=True)))
    excess = maximum - perturbed + gap
    return maximum - np.maximum(excess, np.float32(0)) - np.log1p(np.exp(-np.abs(excess)))


def _largest(logs):
    largest = logs.max(-1, keepdims=True)
    return np.where(largest > _NONE, largest, np.float32(0))
