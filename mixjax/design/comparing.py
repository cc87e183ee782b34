"""Compares a proposed mixture with those that need no design, and says what the intervals allow to say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixjax.design.fitted import Fitted
from mixjax.design.objectives import Objective
from mixjax.design.runs import Swarm

__all__ = ["Comparison", "best_of_swarm", "compared", "difference_text"]


class Comparison(NamedTuple):
    """Holds how much lower the objective of a proposal is than that of another mixture.

    Attributes:
        name: the other mixture's name, such as "the uniform mixture".
        mixture: ``[D]``, the other mixture.
        gain: the predicted difference; positive where the proposal is better.
        low: lower end of the gain's 90 % interval, for the mean over seeds.
        high: upper end of this interval.
    """

    name: str
    mixture: np.ndarray
    gain: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Tells whether the proposal is better by the interval."""
        return self.low > 0

    def __str__(self) -> str:
        """Says in words which of the two is better, and whether the interval allows to say so."""
        verdict = "better than" if self.is_better else "not better than"
        return f"{verdict} {self.name} by the interval: {difference_text(self.gain, self.low, self.high)}"


def difference_text(gain: float, low: float, high: float) -> str:
    """Says how much lower or higher a proposal's objective is, with the interval in the same direction.

    Args:
        gain: how much lower the objective is; negative where it is higher.
        low: lower end of the gain's interval.
        high: upper end of this interval.

    Example:
        >>> print(difference_text(0.2, 0.1, 0.3), "|", difference_text(-0.2, -0.3, 0.1))
        0.2 lower (0.1 to 0.3) | 0.2 higher (-0.1 to 0.3)
    """
    if gain < 0:
        return f"{-gain:.4g} higher ({-high:.4g} to {-low:.4g})"
    return f"{gain:.4g} lower ({low:.4g} to {high:.4g})"


def compared(
    fitted: Fitted, objective: Objective, weights: np.ndarray, optima: np.ndarray, prior: np.ndarray | None
) -> tuple[Comparison, ...]:
    r"""Compares with the uniform mixture, the prior, and the mixture of the swarm whose runs were best.

    The interval is the predicted difference plus quantiles of what resamples get wrong about the difference between
    the other mixture and their own best one. A proposal is chosen for its predicted value, and the errors of resamples
    at their own choices hold the same optimism.

    Args:
        fitted: the law.
        objective: what is to be low.
        weights: ``[D]``, the proposal.
        optima: ``[B, D]``, the best mixture of each resample.
        prior: ``[D]``, the domains' natural shares; None leaves this comparison out.

    Returns:
        A comparison with each of the other mixtures.
    """
    swarm, surface = fitted.swarm, fitted.surface()
    others = {"the uniform mixture": np.full(len(weights), 1.0 / len(weights))}
    if prior is not None:
        others["the proportional mixture"] = prior
    others["the swarm's best run"] = best_of_swarm(swarm, objective)

    def plain(mixtures):
        return objective.value(surface.predict(surface.params, mixtures).T)

    at_optima = plain(optima) - objective.value(surface.slopes(surface.resampled, optima)[0])
    found = []
    for name, mixture in others.items():
        gain = plain(mixture[None])[0] - plain(weights[None])[0]
        resampled = objective.value(surface.predict(surface.resampled, mixture[None])[..., 0])
        errors = plain(mixture[None])[0] - resampled - at_optima
        low, high = gain + np.quantile(errors, [0.05, 0.95])
        # The quantiles may leave out the gain itself where the noise is rounding.
        low, high = float(min(low, gain)), float(max(high, gain))
        found.append(Comparison(name, mixture, gain=float(gain), low=low, high=high))
    return tuple(found)


def best_of_swarm(swarm: Swarm, objective: Objective) -> np.ndarray:
    """Returns the mixture of the swarm whose runs had the least objective on average, ``[D]``."""
    if swarm.budgets is not None:
        # Runs of different budgets cannot be compared by their losses.
        swarm = swarm.part(swarm.budgets == swarm.budgets.max())
    groups = swarm.groups()
    means = np.bincount(groups, objective.value(swarm.losses)) / np.bincount(groups)
    return swarm.mixtures[np.flatnonzero(groups == np.argmin(means))[0]]
