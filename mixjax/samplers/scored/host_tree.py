"""Mirrors :mod:`mixjax.samplers.scored.tree` in NumPy, operation by operation: the same key gives the same draws.

Siblings are stored as a row: a level is ``[ceil(nodes / fanout), fanout]``, filled up with masses of zero. Where the
functions of ``tree`` look up the children of nodes one by one, the functions here take whole rows. The root's children
are all rows of their level. Callers silence NumPy's warnings on infinities.

:mod:`mixjax.samplers.scored.compiled` holds the same functions for numba, with the same results to the bit. So sums
are sequential here, by ``cumsum``. Every ``log`` is computed in float64 and rounded: NumPy's and the C library's own
float32 functions differ in the last bit, and their float64 functions do not once they are rounded. The most frequent
function, ``exp``, is written out below, since the C library's takes most of the time of compiled code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mixjax.samplers.scored import threefry
from mixjax.samplers.scored.levels import Level, Nodes

if TYPE_CHECKING:
    import jax

__all__ = [
    "Masses",
    "as_rows",
    "build",
    "combine",
    "draw",
    "draw_distinct",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log_add_exp",
    "nodes_as_rows",
    "refresh",
    "relative",
    "root",
    "top_k",
    "write",
]

Masses = Callable[[int, np.ndarray], np.ndarray]
"""Called with a level and the ids ``[B]`` of nodes one level above; returns their children's log-masses [B, fanout]."""

_NO_MASS = np.float32(-np.inf)

PIECES = 1024
"""Number of pieces of an octave in the table that ``exp`` reads."""

POWERS = np.exp2(np.arange(PIECES) / PIECES)
"""The powers of two of one octave, float64 ``[PIECES]``."""

PIECE = math.log(2) / PIECES
"""The length of a piece, in units of the argument of ``exp``."""

FARTHEST = 200.0
"""Largest magnitude of an argument of ``exp``: beyond it, all float32 results are 0 or infinite anyway."""


def as_rows(flat: jax.Array | np.ndarray, fanout: int, fill: float) -> np.ndarray:
    """Copies ``[n]`` into rows, float32 ``[ceil(n / fanout), fanout]``; ``fill`` fills up the last one."""
    rows = np.full((-(-len(flat) // fanout), fanout), fill, np.float32)
    rows.reshape(-1)[: len(flat)] = flat
    return rows


def nodes_as_rows(nodes: Nodes | Level, fanout: int) -> Nodes:
    """Copies a level into rows, filled up with masses of zero."""
    return Nodes(as_rows(nodes.top, fanout, 0.0), as_rows(nodes.log, fanout, -np.inf))


def combine(nodes: Nodes, heat: np.float32) -> Nodes:
    """Adds up the masses of each row; ``[rows]``."""
    top = np.where(nodes.log > _NO_MASS, nodes.top, _NO_MASS).max(-1)
    top = np.where(top > _NO_MASS, top, np.float32(0))
    logs = relative(nodes, top[:, None], np.float32(0), heat)
    largest = _largest(logs)
    return Nodes(top, log(_sums_of(exp(logs - largest))) + largest[:, 0])


def relative(nodes: Nodes, top: ArrayLike, log: ArrayLike, heat: np.float32) -> np.ndarray:
    """Returns the log of masses over ``exp(log + heat * top)``, ``log`` being finite; -inf where a mass is zero."""
    return np.where(nodes.log > _NO_MASS, nodes.log + heat * (nodes.top - top) - log, _NO_MASS)


def build(leaves: Nodes, levels: int, heat: np.float32) -> tuple[Nodes, ...]:
    """Computes the levels above the leaves in O(n); all levels, the leaves too, are rows."""
    sums, below = [], leaves
    for _ in range(levels):
        below = nodes_as_rows(combine(below, heat), below.log.shape[1])
        sums.append(below)
    return tuple(sums)


def root(rows: Nodes, heat: np.float32) -> Nodes:
    """Adds up the masses of a whole level."""
    top, log = combine(Nodes(rows.top.reshape(1, -1), rows.log.reshape(1, -1)), heat)
    return Nodes(top[0], log[0])


def refresh(
    sums: tuple[Nodes, ...], leaves: Callable[[np.ndarray | slice], Nodes], ids: np.ndarray, heat: np.float32
) -> list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Recomputes in place the sums above some leaves.

    Args:
        sums: the levels above the leaves.
        leaves: maps numbers of rows to their leaves.
        ids: ``[B]``, the leaves that changed.
        heat: scalar in [0, 1e30].

    Returns:
        A list of ``(array, positions, old)``, which undo the writes, as :func:`write` returns them.
    """
    undo = []
    for level, above in enumerate(sums):
        ids = ids // above.log.shape[1]
        below = _rows_of(sums[level - 1], ids) if level else leaves(ids)
        new = combine(below, heat)
        undo += [write(above.top, ids, new.top), write(above.log, ids, new.log)]
    return undo


def write(
    rows: np.ndarray, ids: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Writes ``rows.flat[ids] = new`` in place; returns ``(array, positions, old)``, with which to undo it."""
    # Rows and columns, not a reshape: rows may be a view of a larger array, and their reshape a copy.
    positions = np.divmod(ids, rows.shape[1])
    old = rows[positions]
    rows[positions] = new
    return rows, positions, old


def draw(
    key: np.ndarray, masses: Masses, sizes: tuple[int, ...], fanout: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws leaves independently: ``(ids, log_masses)``, each ``[B]``."""
    # As in tree.draw: a number for each level below, and two for the root's children, which form a square.
    *below, width = sizes
    uniforms = threefry.uniform(key, (len(below) + 2, batch_size, 1))
    logs = _root_children(masses, sizes, fanout)
    side = math.isqrt(width - 1) + 1
    shares = as_rows(_shares(logs), side, 0.0)
    row = _choose(uniforms[-1], _ends_of(np.float32(_sums_of(shares))))
    nodes = row * side + _choose(uniforms[-2], _ends_of(shares)[row])
    logs = logs[nodes]
    for level in reversed(range(len(below))):
        siblings = masses(level, nodes)
        chosen = _choose(uniforms[level], _ends_of(_shares(siblings)))
        nodes = nodes * fanout + chosen
        logs = siblings[np.arange(batch_size), chosen]
    return nodes, logs


def draw_distinct(
    key: np.ndarray, masses: Masses, sizes: tuple[int, ...], fanout: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the ``k`` leaves of largest perturbed log-mass: ``(ids, log_masses, perturbed)``, ``[k]``, descending."""
    *below, _ = sizes
    descent = np.arange(len(below) + 1)[::-1]
    first, *gumbels = _gumbels(key, sizes, fanout, k)
    logs = _root_children(masses, sizes, fanout)
    perturbed = logs + first
    nodes = _drawn(perturbed, k)
    logs, maxima = logs[nodes], perturbed[nodes]
    for level, gumbel in zip(descent[1:], gumbels, strict=True):
        logs = masses(level, nodes)
        # Fewer than k nodes are followed where fewer have a mass; their children take the first variables.
        perturbed = logs + gumbel[: logs.size].reshape(logs.shape)
        perturbed = np.where(logs > _NO_MASS, _condition(perturbed, maxima[:, None]), _NO_MASS).reshape(-1)
        chosen = _drawn(perturbed, k)
        nodes = nodes[chosen // fanout] * fanout + chosen % fanout
        logs, maxima = logs.reshape(-1)[chosen], perturbed[chosen]
    # Fewer leaves of some mass than asked for: the rest is padding, told by its perturbed log-mass of -inf.
    missing = k - nodes.size
    if missing:
        nodes = np.pad(nodes, (0, missing))
        logs = np.pad(logs, (0, missing), constant_values=_NO_MASS)
        maxima = np.pad(maxima, (0, missing), constant_values=_NO_MASS)
    return nodes, logs, maxima


def top_k(x: np.ndarray, k: int) -> np.ndarray:
    """Finds the positions of the ``k`` largest, descending; equal ones in their order, as in ``jax.lax.top_k``."""
    # Sort only the entries that can be among the k largest.
    candidates = np.flatnonzero(x >= np.partition(x, -k)[-k]) if k < x.size else np.arange(x.size)
    return candidates[np.argsort(-x[candidates], kind="stable")[:k]]


def _gumbels(key, sizes, fanout, k):
    """Returns Gumbel variables for the children of each level's followed nodes, from the root's children down."""
    *below, width = sizes
    descent = np.arange(len(below) + 1)[::-1]
    counts = [width]
    for _ in below:
        counts.append(min(counts[-1], k) * fanout)
    # All levels in one call of the cipher, which costs as much for a few numbers as for a thousand.
    keys = np.repeat(threefry.fold_in(key, descent) if below else key[None], counts, axis=0)
    counters = np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])
    numbers = threefry.to_gumbel(threefry.random_bits(keys, counters))
    return np.split(numbers, np.cumsum(counts)[:-1])


def _drawn(perturbed, k):
    """Finds the positions of the ``k`` largest, or of fewer where fewer have a mass."""
    chosen = top_k(perturbed, k)
    return chosen[perturbed[chosen] > _NO_MASS]


def _root_children(masses, sizes, fanout):
    *below, width = sizes
    return masses(len(below), np.arange(-(-width // fanout))).ravel()[:width]


def _rows_of(nodes, ids):
    # Indices, not take, which copies the whole of an array that is a view.
    return Nodes(nodes.top[ids], nodes.log[ids])


def exp(x: Any) -> np.ndarray:
    """Computes the exponential within 2^-36, in float64 and rounded to float32."""
    x = np.clip(x, -FARTHEST, FARTHEST, dtype=np.float64)
    # exp(x) = 2^(pieces / 1024) exp(rest), where the rest is so small that three terms of its series are enough.
    pieces = np.rint(x * (1 / PIECE))
    rest = x - pieces * PIECE
    pieces = pieces.astype(np.int64)
    within = POWERS.take(pieces & (PIECES - 1)) * (1.0 + rest * (1.0 + 0.5 * rest))
    return np.ldexp(within, pieces // PIECES).astype(np.float32)


def log(x: Any) -> np.ndarray:
    """Computes the logarithm, in float64 and rounded to float32."""
    return np.log(x, dtype=np.float64).astype(np.float32)


def expm1(x: Any) -> np.ndarray:
    """Computes ``exp(x) - 1``, in float64 and rounded to float32."""
    return np.expm1(x, dtype=np.float64).astype(np.float32)


def log1p(x: Any) -> np.ndarray:
    """Computes ``log(1 + x)``, in float64 and rounded to float32."""
    return np.log1p(x, dtype=np.float64).astype(np.float32)


def log_add_exp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Computes ``log(exp(x) + exp(y))`` of numbers below infinity."""
    larger, smaller = np.maximum(x, y), np.minimum(x, y)
    # Where both are -inf their difference would be NaN.
    gap = np.where(larger > _NO_MASS, smaller - larger, np.float32(0))
    return larger + log1p(exp(gap))


def _sums_of(rows):
    # The last of the sequential sums: NumPy's sum adds up in an order of its own.
    return np.cumsum(rows, -1, dtype=np.float64)[..., -1]


def _shares(logs):
    return exp(logs - _largest(logs))


# The next two functions do what ends_of and choose of mixjax.samplers.inverse_cdf do in JAX.


def _ends_of(shares):
    return np.where(shares > 0, np.cumsum(shares, -1), np.float32(-1))


def _choose(uniforms, ends):
    return (ends > uniforms * ends.max(-1, keepdims=True)).argmax(-1)


def _condition(perturbed, maximum):
    # As in tree: a numerically safe form of -log(exp(-maximum) - exp(-largest) + exp(-perturbed)).
    gap = log(-expm1(perturbed - perturbed.max(-1, keepdims=True)))
    excess = maximum - perturbed + gap
    return maximum - np.maximum(excess, np.float32(0)) - log1p(exp(-np.abs(excess)))


def _largest(logs):
    # Where all are -inf, 0 takes their place: -inf - (-inf) would be NaN.
    largest = logs.max(-1, keepdims=True)
    return np.where(largest > _NO_MASS, largest, np.float32(0))
