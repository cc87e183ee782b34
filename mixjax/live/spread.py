"""Notices when weights that were spread over several domains come near a single one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "Spread", "effective_number"]

KINDS = ("sampling", "loss")
"""The weights of a plan that are watched."""

# Three domains or more that share equally come to more than the second number. Weights that go to and fro around the
# first one are named once.
_FEWEST, _RECOVERED = 2.0, 2.5


def effective_number(weights: NDArray[np.floating]) -> float:
    """Computes ``exp(-sum_d q_d log q_d)`` in NumPy, as :func:`mixjax.rules.effective_domains` does in JAX.

    Args:
        weights: ``[D]`` on the simplex.

    Example:
        >>> effective_number(np.array([0.5, 0.5, 0.0]))
        2.0
    """
    shares = weights[weights > 0].astype(np.float64)
    return float(np.exp(-(shares * np.log(shares)).sum()))


class Spread:
    """Names the steps in which weights fall below an effective number of two domains.

    Weights are named once, and again only after they were spread over more than 2.5 domains. Weights that start below
    two domains, or on fewer than three, have not fallen and are not named. So a plan of one or two domains never is.
    """

    def __init__(self, names: Sequence[str]):
        """Takes the names of the domains."""
        self._names = list(names)
        # Weights often stay for many steps, in which their number is known.
        self._last: dict[str, tuple[NDArray[np.float32], float]] = {}

    def at_start(self, q: NDArray[np.float32], c: NDArray[np.float32] | None) -> frozenset[str]:
        """Returns the kinds of weights that a plan starts with near a single domain.

        Args:
            q: float32 ``[D]``, the first sampling weights.
            c: float32 ``[D]``, the first loss weights; None means the sampling weights.
        """
        first = {"sampling": q, "loss": q if c is None else c}
        return frozenset(
            kind
            for kind, weights in first.items()
            if np.count_nonzero(weights) < 3 or effective_number(weights) < _FEWEST
        )

    def after(
        self, before: frozenset[str], q: NDArray[np.float32], c: NDArray[np.float32] | None
    ) -> tuple[frozenset[str], list[dict[str, Any]]]:
        """Returns the kinds of weights near a single domain in a step, and what an event says of those that fell.

        Args:
            before: the kinds that were near one domain in the step before.
            q: float32 ``[D]``, the sampling weights that were asked for.
            c: float32 ``[D]``, the loss weights; None means the sampling weights, which are then named alone.
        """
        near, fallen = set(before), []
        # Of two domains all weights but equal ones come to less than two.
        if len(self._names) < 3:
            return before, fallen
        for kind, weights in (("sampling", q), ("loss", c)):
            if weights is None:
                continue
            number = self._number(kind, weights)
            if number > _RECOVERED:
                near.discard(kind)
            if number < _FEWEST and kind not in near:
                near.add(kind)
                largest = int(weights.argmax())
                fallen.append(
                    {
                        "event": f"{kind} weights near one domain",
                        "domains": [self._names[largest]],
                        "share": float(weights[largest]),
                        "effective_domains": number,
                    }
                )
        return frozenset(near), fallen

    def _number(self, kind: str, weights: NDArray[np.float32]) -> float:
        last = self._last.get(kind)
        if last is None or last[0] is not weights:
            last = self._last[kind] = weights, effective_number(weights)
        return last[1]
