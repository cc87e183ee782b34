"""Keeps the weights that were published, and says which are in force in a step."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixjax.live.arguments import as_step, check_integer

__all__ = ["Schedule", "as_weights"]

Weights = tuple[NDArray[np.float32], "NDArray[np.float32] | None"]


def as_weights(name: str, values: ArrayLike, num_domains: int) -> NDArray[np.float32]:
    """Normalises a non-negative vector to sum one.

    Args:
        name: the argument as the error calls it.
        values: ``[D]``, finite, non-negative, not all zero.
        num_domains: ``D``.

    Returns:
        float32 ``[D]``.

    Raises:
        ValueError: another shape, or an entry that is negative or not finite, or none that is positive.
    """
    try:
        weights = np.asarray(values)
        # NumPy would read texts as numbers, and drop what is imaginary.
        if weights.dtype.kind in "cUSmM":
            raise TypeError
        weights = weights.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be [{num_domains}], one number per domain, got {values!r}.") from None
    if weights.shape != (num_domains,):
        raise ValueError(f"{name} must be [{num_domains}], one entry per domain, got shape {weights.shape}.")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(f"{name} must be finite, non-negative and not all zero, got {weights}.")
    # The sum of weights near the largest float would overflow.
    scaled = weights / weights.max()
    return (scaled / scaled.sum()).astype(np.float32)


class Schedule:
    """Holds the changes of the weights that steps still to come need, ordered by the step from which they hold."""

    def __init__(self, num_domains: int, weights: ArrayLike, loss_weights: ArrayLike | None, lag: int):
        """Starts before step 0, with the weights of its steps until a publication comes into force."""
        check_integer("lag", lag, 1)
        self.num_domains, self.lag = num_domains, int(lag)
        self.next_to_publish = 0
        self.first = self._pair(weights, loss_weights)
        self._changes: list[tuple[int, Weights]] = [(0, self.first)]

    def knows(self, step: int) -> bool:
        """Tells whether the weights of a step are known: all steps at least ``lag`` before it were published."""
        return step < self.next_to_publish + self.lag

    def in_force(self, step: int) -> Weights:
        """Returns the sampling weights of a step and its loss weights, or None for those."""
        return self._changes[bisect.bisect_right(self._changes, step, key=lambda change: change[0]) - 1][1]

    def publish(self, step: int, weights: ArrayLike, loss_weights: ArrayLike | None) -> None:
        """Notes a change from ``step + lag`` on; :meth:`mixjax.live.Plan.publish` has the arguments."""
        pair = self._pair(weights, loss_weights)
        self.keep(step)
        self._changes.append((self.next_to_publish - 1 + self.lag, pair))

    def keep(self, step: int) -> None:
        """Notes that a step was trained."""
        step = as_step(step)
        if step != self.next_to_publish:
            raise ValueError(
                f"steps are published once and in order: the next is step {self.next_to_publish}, got step {step}."
            )
        self.next_to_publish += 1

    def forget_before(self, step: int) -> None:
        """Drops the changes that no step from this one on needs."""
        while len(self._changes) > 1 and self._changes[1][0] <= step:
            del self._changes[0]

    def get_state(self) -> dict[str, Any]:
        """Returns the schedule for JSON."""
        changes = [
            {"from": start, "weights": _short(q), "loss_weights": None if c is None else _short(c)}
            for start, (q, c) in self._changes
        ]
        return {"lag": self.lag, "next_to_publish": self.next_to_publish, "changes": changes}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what :meth:`get_state` returned."""
        self.next_to_publish = state["next_to_publish"]
        self._changes = []
        for change in state["changes"]:
            c = change["loss_weights"]
            pair = np.array(change["weights"], np.float32), None if c is None else np.array(c, np.float32)
            self._changes.append((change["from"], pair))

    def _pair(self, weights, loss_weights) -> Weights:
        q = as_weights("weights", weights, self.num_domains)
        c = None if loss_weights is None else as_weights("loss_weights", loss_weights, self.num_domains)
        return q, c


def _short(weights: NDArray[np.float32]) -> list[float]:
    """Returns numbers of nine digits that round to the weights: JSON would write seventeen digits of theirs."""
    digits = 8 - np.floor(np.log10(weights, where=weights > 0, out=np.zeros(weights.size)))
    scale = 10.0**digits
    values = np.rint(weights * scale) / scale
    # A weight below 1e-14 has a scale that is no exact number, and is written as it is if that makes a difference.
    return np.where(values.astype(np.float32) == weights, values, weights).tolist()
