"""Defines the levels of the tree of scores, for JAX and for NumPy: this module does not load JAX.

:mod:`mixjax.samplers.scored.tree` explains the tree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["WIDEST", "Level", "Nodes", "sizes"]

WIDEST = 1024
"""Largest number of the root's children, unless the fanout is larger."""


class Nodes(NamedTuple):
    """Holds masses ``exp(log + heat * top)``, one a node, in arrays of JAX or, for the host's sampler, of NumPy.

    Attributes:
        top: float32, finite: the largest loss below each node.
        log: float32: the log of the sum of ``prior * exp(heat * (loss - top))``; -inf is a mass of zero.
    """

    top: Any
    log: Any


class Level(NamedTuple):
    """Holds the nodes of one level of a tree, in one array: a node's two numbers share a line of the cache.

    It is read as :class:`Nodes` are.

    Attributes:
        pairs: float32 ``[nodes, 2]``, the top and the log of each node.
    """

    pairs: Any

    @property
    def top(self) -> Any:
        """Returns the largest losses, float32 ``[nodes]``."""
        return self.pairs[:, 0]

    @property
    def log(self) -> Any:
        """Returns the logs of the sums, float32 ``[nodes]``."""
        return self.pairs[:, 1]


def sizes(n: int, fanout: int) -> tuple[int, ...]:
    """Counts the nodes of each level, from the ``n`` leaves to the root's children."""
    counts = [n]
    while counts[-1] > max(WIDEST, fanout):
        counts.append(-(-counts[-1] // fanout))
    return tuple(counts)
