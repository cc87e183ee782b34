"""Chooses the mixtures of the next round of runs: where the law is uncertain about what is best."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from mixjax.checks import check_choice, check_integer, check_non_negative
from mixjax.design.proposing import Proposal
from mixjax.design.simplex import project
from mixjax.design.solver import one_blas_thread

__all__ = ["Round", "next_round"]

_DRAWN = 512  # mixtures to choose from, beside the region and the resamples' best
_TARGETS = 256  # resamples whose best mixtures are to be told apart, at most
_CONCENTRATION = 0.7  # of the mixtures drawn; below 1 many are near an edge


@dataclasses.dataclass(frozen=True)
class Round:
    """Holds the mixtures of the next round; :func:`next_round` makes it.

    Attributes:
        mixtures: ``[num, D]``, the mixtures to train; ``[0, D]`` where the rounds end.
        slack: how far the proposal's objective may be above that of the best mixture, as in
            :class:`mixjax.design.Proposal`.
        diameter: the largest part of the batch that a mixture of the region has elsewhere than the proposal, in [0, 1].
        stop: why the rounds end, in words; empty where they go on.
    """

    mixtures: np.ndarray
    slack: float
    diameter: float
    stop: str

    def __str__(self) -> str:
        """Says whether the rounds go on, and what may still be gained."""
        verdict = f"stop: {self.stop}" if self.stop else f"go on with {len(self.mixtures)} mixtures"
        return (
            f"{verdict}; the proposal may lose {self.slack:.3g} to the best mixture, which has at most "
            f"{self.diameter:.1%} of the batch elsewhere"
        )


def next_round(
    proposal: Proposal,
    num: int,
    *,
    kind: Literal["informative", "thompson"] = "informative",
    slack: float = 0.0,
    diameter: float = 0.0,
    seed: int = 0,
) -> Round:
    r"""Chooses the mixtures whose runs would tell most about which mixture is best, or says that the rounds end.

    Each resample of the law has a best mixture :math:`r_b` of its own. With O the objective by a random resample,
    "informative" takes mixtures x one by one, each the one that lowers the variances

    .. math:: \sum_b \operatorname{Var}\bigl(O(r_b) - O(\hat r)\bigr)

    most. A run at x with noise of variance :math:`\sigma^2` lowers each by
    :math:`\operatorname{Cov}(O(r_b) - O(\hat r), O(x))^2 / (\operatorname{Var} O(x) + \sigma^2)`, if the resamples are
    normally distributed. The mixtures chosen need not be good ones: corners of the simplex often tell most.

    "thompson" takes the best mixtures of random resamples. It tells little about a law that holds, in our simulations
    less than random mixtures. It does look at what a law says where the law matters.

    A round is followed by a fit to all runs so far, and a new proposal.

    Args:
        proposal: from :func:`mixjax.design.propose`, of all runs so far.
        num: number of mixtures that the budget allows; 0 ends the rounds. A mixture may be chosen several times.
        kind: how the mixtures are chosen.
        slack: the rounds end where the proposal may lose at most this much, in the unit of the objective.
        diameter: the rounds end where all mixtures of the region have at most this part of the batch elsewhere than the
            proposal.
        seed: seed of the draws.

    Returns:
        The mixtures, within the proposal's bounds, and how far the rounds have come.

    Raises:
        ValueError: a number that is no integer of at least 0, another kind, or negative limits.

    Example:
        >>> import mixjax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> mixtures = rng.dirichlet(np.ones(3), 20)
        >>> def losses(mixtures):
        ...     return np.exp(-3 * mixtures) + 0.03 * rng.normal(size=mixtures.shape)
        >>> found, measured = [], losses(mixtures)
        >>> for left in (20, 0):
        ...     fitted = mixjax.design.fit(mixtures, measured, law="log_linear", resamples=100)
        ...     found.append(next_round(mixjax.design.propose(fitted), left))
        ...     mixtures = np.concatenate([mixtures, found[-1].mixtures])
        ...     measured = np.concatenate([measured, losses(found[-1].mixtures)])
        >>> [len(each.mixtures) for each in found], found[1].slack < found[0].slack, found[1].stop
        ([20, 0], True, 'no runs are left')

    References:
        Thompson, "On the likelihood that one unknown probability exceeds another", 1933. "informative" is a one-step
        form of optimal design for the differences from the best, as in Seo et al., "Gaussian process regression: active
        data selection and test point rejection", 2000, with bootstrap covariances in place of a Gaussian process.
    """
    check_integer("num", num, 0)
    check_integer("seed", seed, 0)
    check_choice("kind", kind, ("informative", "thompson"))
    check_non_negative("slack", slack)
    check_non_negative("diameter", diameter)
    distance = float(0.5 * np.abs(proposal.region - proposal.weights).sum(axis=1).max())
    stop = ""
    if proposal.slack <= slack:
        stop = f"the proposal loses at most {slack:.3g}"
    elif distance <= diameter:
        stop = f"the region is within {diameter:.1%} of the proposal"
    elif num == 0:
        stop = "no runs are left"
    rng = np.random.default_rng([seed, 5])
    if stop:
        mixtures = proposal.weights[None][:0]
    elif kind == "thompson":
        mixtures = proposal.optima[rng.choice(len(proposal.optima), num, replace=num > len(proposal.optima))]
    else:
        with one_blas_thread():
            mixtures = _informative(proposal, num, rng)
    return Round(mixtures, slack=float(proposal.slack), diameter=distance, stop=stop)


def _informative(proposal, num, rng):
    size = len(proposal.weights)
    drawn = np.concatenate([2.0 * np.eye(size), rng.dirichlet(np.full(size, _CONCENTRATION), _DRAWN)])
    optima = proposal.optima[rng.permutation(len(proposal.optima))[:_TARGETS]]
    pool = np.concatenate([proposal.weights[None], optima, project(drawn, proposal.bounds), proposal.region])
    surface = proposal.fitted.surface()
    losses = surface.predict(surface.resampled, pool)
    values = proposal.objective.value(losses.swapaxes(1, 2))
    covariance = np.atleast_2d(np.cov(values.T))
    gaps = covariance[1 : len(optima) + 1] - covariance[0]
    # Without noise nothing is left to learn at a mixture that has been run.
    noise = max(_noise(proposal), 1e-9 * covariance.trace() / len(pool))
    chosen = []
    for _ in range(num):
        total = np.diag(covariance) + noise
        best = int(np.argmax(np.square(gaps).sum(axis=0) / total))
        chosen.append(best)
        told = covariance[best] / total[best]
        gaps = gaps - np.outer(gaps[:, best], told)
        covariance = covariance - np.outer(covariance[best], told)
    return pool[chosen]


def _noise(proposal):
    """Returns the variance of a run's objective."""
    fitted, objective = proposal.fitted, proposal.objective
    losses = fitted.swarm.losses
    return (objective.value(losses) - objective.value(losses - fitted.noise.T)).var()
