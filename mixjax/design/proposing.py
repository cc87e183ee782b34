"""Proposes the mixture that a fitted law predicts to be best, with the mixtures that may be as good."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mixjax.checks import as_simplex, check_integer, check_non_negative
from mixjax.design.comparing import Comparison, compared
from mixjax.design.divergence import entropy, within_prior
from mixjax.design.fitted import Fitted
from mixjax.design.minimise import minimise
from mixjax.design.objectives import Objective, as_objective
from mixjax.design.runs import as_mixtures
from mixjax.design.searching import mean_of_best, random_mixtures
from mixjax.design.simplex import Bounds, as_bounds, project

__all__ = ["Proposal", "propose"]

# The part of the resamples whose own best mixture must be in the region.
_LEVEL = 0.99
_STARTS = 8
_SHARPNESS = (20.0, 200.0, 2000.0)  # of the stand-in for the worst loss, in units of the losses' range
_ROUNDS = 10  # of the search for the edges of the region, by halves
_EDGES = 300


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Holds the proposed mixture; :func:`propose` makes it.

    Attributes:
        weights: ``[D]``, the proposed share of each domain.
        region: ``[k, D]``, mixtures that may be the best as well, the proposal first.
        optima: ``[B, D]``, the best mixture by each resample of the law.
        value: the predicted objective.
        low: lower end of the 90 % interval of ``value``, for the mean over seeds.
        high: upper end of this interval.
        comparisons: how the proposal compares with the uniform mixture, the prior, and the swarm's best.
        objective: what was to be low.
        bounds: the least and the largest share of each domain.
        fitted: the fitted law.
        slack: how far above the best a mixture's predicted objective may be within the region.
        penalty: the factor of the divergence from the prior.
        prior: ``[D]``, the domains' natural shares; None where none were given.
    """

    weights: np.ndarray
    region: np.ndarray
    optima: np.ndarray
    value: float
    low: float
    high: float
    comparisons: tuple[Comparison, ...]
    objective: Objective
    bounds: Bounds
    fitted: Fitted
    slack: float
    penalty: float
    prior: np.ndarray | None

    def contains(self, mixtures: Any) -> np.ndarray:
        """Tells which mixtures belong to the region: within the bounds, and not distinguishable from the best.

        Args:
            mixtures: ``[m, D]``.

        Returns:
            ``[m]``, booleans.

        Raises:
            ValueError: mixtures that are none.
        """
        mixtures = as_mixtures("mixtures", mixtures, self.fitted.swarm.domains)
        problem = _Problem(self.fitted, self.objective, self.penalty, self.prior)
        return self.bounds.allow(mixtures) & (
            problem.values(mixtures) <= problem.values(self.weights[None]) + self.slack
        )


def propose(
    fitted: Fitted,
    objective: Any = None,
    max_share: Any = None,
    *,
    min_share: Any = None,
    prior: Any = None,
    penalty: float = 0.0,
    budget: float | None = None,
    seed: int = 0,
) -> Proposal:
    r"""Finds the mixture with the least predicted objective, within bounds of the shares.

    .. math:: \hat r = \arg\min_{l \le r \le u} \; O(\hat L(r)) + \lambda\, \mathrm{KL}(r \,\|\, \pi)

    Each resample of the fit has a best mixture :math:`r_b` of its own. They give

    - the region: all mixtures r with :math:`\hat O(r) \le \hat O(\hat r) + s`, where 99 % of the resamples have
      :math:`O_b(\hat r) - O_b(r_b) \le s`. If the law holds, the mixture that is truly best is within it as often;
    - the interval of the objective, :math:`\hat O(\hat r)` plus 5 % and 95 % quantiles of
      :math:`\hat O(r_b) - O_b(r_b)`. The minimum of a noisy function is too low, and these errors are those of minima.

    Args:
        fitted: from :func:`mixjax.design.fit`.
        objective: what is to be low: None or "mean" of all metrics, "worst" of them, a metric's name or several, a
            mapping of names to weights, or ``[M]`` weights.
        max_share: the largest share, one number, ``[D]``, or a mapping of domains to numbers. To train on ``budget``
            tokens and see no domain more than ``max_epochs`` times, take ``sizes * max_epochs / budget``, cut at 1.
        min_share: the least share, in the same forms.
        prior: ``[D]``, the domains' natural shares, such as their sizes; the proposal is compared with them.
        penalty: :math:`\lambda`, in the unit of the objective; the prior is then uniform unless it is given, and
            domains of prior 0 get no share.
        budget: the tokens that the mixture is for, if the law was fitted to runs of several budgets.
        seed: seed of the random starts of the search.

    Returns:
        The proposal.

    Raises:
        TypeError: an objective that is none.
        ValueError: unknown names, bounds without a mixture, a prior that is not ``[D]`` on the simplex, a negative
            penalty, or a budget that is missing, not positive, or not needed.

    Example:
        >>> import mixjax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> mixtures = rng.dirichlet(np.ones(3), 40)
        >>> losses = np.exp(-3 * mixtures) + 0.001 * rng.normal(size=(40, 3))
        >>> fitted = mixjax.design.fit(mixtures, losses, law="log_linear", resamples=100)
        >>> propose(fitted).weights.round(1).tolist()
        [0.3, 0.3, 0.3]
        >>> propose(fitted, "loss_2", max_share=0.8).weights.round(1)[2].item()
        0.8
    """
    if budget is not None:
        fitted = fitted.at(budget)
    swarm = fitted.swarm
    wanted = as_objective(objective, swarm.metrics)
    bounds = as_bounds(swarm.domains, min_share, max_share)
    check_non_negative("penalty", penalty)
    check_integer("seed", seed, 0)
    if prior is not None:
        # float32 sums to one up to its own rounding only.
        prior = np.asarray(as_simplex("prior", prior), np.float64)
        prior = prior / prior.sum()
        if len(prior) != len(swarm.domains):
            raise ValueError(f"prior must be [{len(swarm.domains)}], a share per domain, got [{len(prior)}].")
        if penalty:
            bounds = within_prior(bounds, prior, swarm.domains)
    problem = _Problem(fitted, wanted, penalty, prior)
    weights = problem.best(bounds, seed)
    optima, optimum_values = problem.best_of_resamples(weights, bounds, seed)
    here = problem.values(weights[None])[0]
    # Above the value of the proposal in the same resample; a search that ended early must not make it negative.
    slack = float(np.quantile(np.maximum(problem.resampled_values(weights) - optimum_values, 0.0), _LEVEL))
    errors = problem.plain(optima) - problem.plain_resampled(optima)
    value = float(problem.plain(weights[None])[0])
    low, high = value + np.quantile(errors, [0.05, 0.95])
    comparisons = compared(fitted, wanted, weights, optima, prior)
    region = _region(problem, weights, optima, bounds, here + slack, swarm.mixtures)
    low, high = min(float(low), value), max(float(high), value)
    return Proposal(
        weights=weights,
        region=region,
        optima=optima,
        value=value,
        low=low,
        high=high,
        comparisons=comparisons,
        objective=wanted,
        bounds=bounds,
        fitted=fitted,
        slack=slack,
        penalty=float(penalty),
        prior=prior,
    )


class _Problem:
    """Computes and minimises the objective as a function of the mixture, by the fit and by each resample of it."""

    def __init__(self, fitted, objective, penalty, prior):
        self.law, self.objective, self.penalty = fitted.surface(), objective, penalty
        self.params, self.resampled, self.swarm = self.law.params, self.law.resampled, fitted.swarm
        size = len(fitted.swarm.domains)
        self.log_prior = np.log(np.maximum(np.full(size, 1.0 / size) if prior is None else prior, 1e-12))
        self.range = max(np.ptp(objective.value(fitted.swarm.losses)), 1e-12)

    def divergence(self, mixtures):
        """Returns the penalty for the distance from the prior, ``[m]``."""
        return self.penalty * (entropy(mixtures)[0] - mixtures * self.log_prior).sum(axis=-1)

    def plain(self, mixtures):
        """Returns the predicted objective ``[m]``, without the penalty."""
        return self.objective.value(self.law.predict(self.params, mixtures).T)

    def plain_resampled(self, mixtures):
        """Returns each resample's objective at a mixture of its own, ``[B]``."""
        return self.objective.value(self.law.slopes(self.resampled, mixtures)[0])

    def values(self, mixtures):
        """Returns the predicted objective with the penalty, ``[m]``."""
        return self.plain(mixtures) + self.divergence(mixtures)

    def resampled_values(self, mixture):
        """Returns each resample's objective at one mixture, with the penalty, ``[B]``."""
        every = np.broadcast_to(mixture, (len(self.resampled), len(mixture)))
        return self.plain_resampled(every) + self.divergence(every)

    def minimise(self, params, start, bounds):
        """Minimises the objective of each of several parameters ``[B, M, P]``, from its start ``[B, D]``."""
        for sharpness in _SHARPNESS if self.objective.is_worst else _SHARPNESS[:1]:

            def function(mixtures, which, sharpness=sharpness):
                losses, slopes = self.law.slopes(params[which], mixtures)
                value, gradient = self.objective.smooth(losses, slopes, sharpness / self.range)
                if not self.penalty:
                    return value, gradient
                gradient = gradient + self.penalty * (entropy(mixtures)[1] - self.log_prior)
                return value + self.divergence(mixtures), gradient

            start, _ = minimise(function, start, bounds)
        exact = self.objective.value(self.law.slopes(params, start)[0]) + self.divergence(start)
        return start, exact

    def starts(self, bounds, seed):
        """Returns the middle, the best mixtures of the swarm by the fit, and random ones, within the bounds."""
        size = len(self.log_prior)
        order = np.argsort(self.values(self.swarm.mixtures))[: _STARTS // 2]
        drawn = np.random.default_rng([seed, 3]).dirichlet(np.ones(size), _STARTS // 2)
        return project(np.vstack([np.full((1, size), 1.0 / size), self.swarm.mixtures[order], drawn]), bounds)

    def best(self, bounds, seed):
        """Returns the mixture ``[D]`` of the least objective by the fit."""
        if not self.law.is_smooth:
            tried = random_mixtures(self.swarm.mixtures, bounds, seed)
            return mean_of_best(tried, self.values(tried))
        starts = self.starts(bounds, seed)
        params = np.broadcast_to(self.params, (len(starts), *self.params.shape))
        found, values = self.minimise(params, starts, bounds)
        return found[np.argmin(values)]

    def best_of_resamples(self, weights, bounds, seed):
        """Returns the best mixture of each resample, ``[B, D]``, and its objective, ``[B]``."""
        if not self.law.is_smooth:
            tried = random_mixtures(self.swarm.mixtures, bounds, seed)
            penalty = self.divergence(tried)
            found = np.stack(
                [
                    mean_of_best(tried, self.objective.value(self.law.predict(params, tried).T) + penalty)
                    for params in self.resampled
                ]
            )
            return found, self.plain_resampled(found) + self.divergence(found)
        is_convex = self.law.is_convex and bool((self.objective.weights >= 0).all())
        starts = [weights] if is_convex else [weights, *self.starts(bounds, seed)[:3]]
        tries = [
            self.minimise(self.resampled, np.broadcast_to(start, (len(self.resampled), len(start))), bounds)
            for start in starts
        ]
        best = np.argmin([values for _, values in tries], axis=0)
        every = np.arange(len(best))
        mixtures = np.stack([found for found, _ in tries])[best, every]
        objectives = np.stack([values for _, values in tries])[best, every]
        return mixtures, objectives


def _region(problem, weights, optima, bounds, level, mixtures):
    """Returns mixtures of objective below a level: the edges seen from the proposal, resamples' optima, and runs."""
    vertices = project(2.0 * np.eye(len(weights)), bounds)
    ends = np.concatenate([vertices, 2.0 * optima[:_EDGES] - weights])
    ends = ends[bounds.allow(ends)]
    inner, outer = np.zeros(len(ends)), np.ones(len(ends))
    for _ in range(_ROUNDS):
        middle = 0.5 * (inner + outer)
        fits = problem.values(weights + middle[:, None] * (ends - weights)) <= level
        inner, outer = np.where(fits, middle, inner), np.where(fits, outer, middle)
    edges = weights + inner[:, None] * (ends - weights)
    candidates = np.concatenate([edges, optima, mixtures[bounds.allow(mixtures)]])
    kept = candidates[problem.values(candidates) <= level]
    kept = kept[np.sort(np.unique(kept.round(9), axis=0, return_index=True)[1])]
    return np.concatenate([weights[None], kept])
