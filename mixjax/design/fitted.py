"""Holds a law fitted to a swarm, with resamples of the fit from which predictions get intervals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixjax.checks import check_choice
from mixjax.design.bootstrap import wild_bootstrap
from mixjax.design.laws import LAWS, SMOOTHERS, TOKEN_LAWS, Law, Smoother, Surface, TokenLaw
from mixjax.design.runs import Swarm, as_mixtures

if TYPE_CHECKING:
    from mixjax.design.choosing import Scores

__all__ = ["Fitted", "fit_law", "law_names", "law_of"]

# Predictions are made for this many numbers at once.
_ENTRIES = 4_000_000
_RUNS = 400  # draws of a new run's noise, at least


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Holds a law fitted to a swarm; :func:`fit` makes it.

    Attributes:
        law: the law's name.
        swarm: the runs.
        params: ``[M, P]``, the parameters of each metric's law.
        resampled: ``[B, M, P]``, the parameters by each resample of the runs.
        noise: ``[M, n]``, the runs' residuals, with the variance of a new run's noise.
        scores: how each law predicts runs that it has not seen; empty where the law was named.
        seed: seed of the resamples.
        budget: the tokens for which losses are predicted, for a law in tokens; None where none are given, or needed.
    """

    law: str
    swarm: Swarm
    params: np.ndarray
    resampled: np.ndarray
    noise: np.ndarray
    scores: tuple[Scores, ...]
    seed: int
    budget: float | None = None

    def at(self, budget: float) -> Fitted:
        """Returns the same fit, whose predictions are for another number of tokens.

        Args:
            budget: the tokens that a run is trained on; for a law that was fitted to runs of several budgets.

        Returns:
            The fit, as :func:`mixjax.design.propose` takes it.

        Raises:
            ValueError: a budget that is not positive, or runs that all had the same budget.
        """
        fitted = dataclasses.replace(self, budget=float(budget))
        fitted.surface()
        return fitted

    def surface(self) -> Surface:
        """Returns the predicted losses as functions of the mixture alone, at the fit's budget.

        Raises:
            ValueError: the law needs a budget and has none, or has one and needs none.
        """
        law, swarm = law_of(self.law, self.swarm), self.swarm
        if not isinstance(law, TokenLaw):
            if self.budget is not None:
                raise ValueError("budget must be None, since the law was fitted to runs without budgets.")
            if isinstance(law, Smoother):
                return law.surface(swarm.mixtures, self.params, self.resampled)
            return Surface(law.predict, law.slopes, law.is_convex, True, self.params, self.resampled)
        if self.budget is None or not (np.isfinite(self.budget) and self.budget > 0):
            raise ValueError(f"budget must be a positive number of tokens, got {self.budget}.")
        plain, log_tokens = law.plain, float(swarm.log_tokens(np.array(self.budget)))
        params, resampled = law.at(self.params, log_tokens), law.at(self.resampled, log_tokens)
        return Surface(plain.predict, plain.slopes, plain.is_convex, True, params, resampled)

    def predict(
        self, mixtures: Any, interval: Literal["mean", "run"] = "mean", budget: Any = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicts the losses of mixtures, with 90 % intervals.

        Args:
            mixtures: ``[m, D]``, or a data frame with the domains as columns.
            interval: ``"mean"`` gives intervals for the mean loss over seeds, if the law holds. ``"run"`` gives those
                for a single new run, whose noise comes on top.
            budget: the tokens that the runs are trained on, one number or ``[m]``, for a law that was fitted to runs of
                several budgets.

        Returns:
            The predictions and the ends of the intervals, ``[m, M]`` each.

        Raises:
            ValueError: mixtures that are none, another interval, or a budget that is missing, not positive, or not
                needed.

        Example:
            >>> import mixjax, numpy as np
            >>> mixtures = np.random.default_rng(0).dirichlet(np.ones(2), 20)
            >>> losses = 1.0 + np.exp(mixtures @ [[0.0], [-2.0]])
            >>> fitted = mixjax.design.fit(mixtures, losses, law="log_linear", resamples=100)
            >>> mean, low, high = fitted.predict([[0.5, 0.5]])
            >>> mean.round(3)
            array([[1.368]])
        """
        check_choice("interval", interval, ("mean", "run"))
        mixtures = as_mixtures("mixtures", mixtures, self.swarm.domains)
        if budget is None or np.ndim(budget) == 0:
            return (self if budget is None else self.at(budget))._predict(mixtures, interval)
        if np.shape(budget) != (len(mixtures),):
            raise ValueError(f"budget must be one number or [{len(mixtures)}], got shape {np.shape(budget)}.")
        budget = np.asarray(budget, np.float64)
        found = np.empty((3, len(mixtures), len(self.swarm.metrics)))
        for one in np.unique(budget):
            found[:, budget == one] = self.at(one)._predict(mixtures[budget == one], interval)
        return found[0], found[1], found[2]

    def _predict(self, mixtures, interval):
        surface = self.surface()
        mean = surface.predict(surface.params, mixtures)
        low, high = np.empty_like(mean), np.empty_like(mean)
        size = max(_ENTRIES // (self.resampled.shape[0] * self.resampled.shape[1]), 1)
        rng = np.random.default_rng([self.seed, 1])
        for i in range(0, len(mixtures), size):
            at = slice(i, i + size)
            drawn = surface.predict(surface.resampled, mixtures[at])
            if interval == "run":
                # Noise is cheap: the quantiles of few resamples would be too narrow.
                drawn = np.tile(drawn, (-(-_RUNS // len(drawn)), 1, 1))
                # The same run for all metrics: their noise goes together.
                runs = rng.integers(self.noise.shape[1], size=(len(drawn), drawn.shape[2]))
                drawn = drawn + self.noise[:, runs].transpose(1, 0, 2)
            low[:, at], high[:, at] = np.quantile(drawn, [0.05, 0.95], axis=0)
        # The quantiles of a resample may leave out the fit itself where the noise is rounding.
        return mean.T, np.minimum(low, mean).T, np.maximum(high, mean).T


def fit_law(name: str, swarm: Swarm, *, resamples: int, seed: int, scores: tuple[Scores, ...] = ()) -> Fitted:
    """Fits one law to the runs of a swarm, and to resamples of them.

    Args:
        name: the law's name.
        swarm: the runs.
        resamples: number of resamples.
        seed: seed of the resamples.
        scores: how the laws were compared, if they were.

    Returns:
        The fitted law.

    Raises:
        ValueError: the swarm has no more mixtures than the law has parameters.
    """
    law, inputs, groups = law_of(name, swarm), swarm.inputs(), swarm.groups()
    num_params, num_mixtures = law.num_parameters(inputs.shape[1]), groups.max() + 1
    if num_mixtures <= num_params:
        many = f"has {num_params} parameters for {len(swarm.domains)} domains and needs more mixtures than that"
        if isinstance(law, Smoother):
            many = f"needs more than {num_params} mixtures for {len(swarm.domains)} domains"
        raise ValueError(f"the law {name!r} {many}, got {num_mixtures}.")
    rng = np.random.default_rng([seed, 0])
    if isinstance(law, Smoother):
        found = law.estimate(inputs, swarm.losses, groups, resamples, rng)
    else:
        found = wild_bootstrap(law, inputs, swarm.losses, groups, resamples, rng)
    return Fitted(
        law=name,
        swarm=swarm,
        params=found.params,
        resampled=found.resampled,
        noise=found.noise,
        scores=scores,
        seed=seed,
    )


def law_names(swarm: Swarm) -> tuple[str, ...]:
    """Returns the names of the laws that can be fitted to a swarm: those in tokens if its runs differ in budget."""
    return (*LAWS, *SMOOTHERS) if swarm.budgets is None else tuple(TOKEN_LAWS)


def law_of(name: str, swarm: Swarm) -> Law | TokenLaw | Smoother:
    """Returns the law of a name, as it is fitted to a swarm."""
    if swarm.budgets is not None:
        return TOKEN_LAWS[name]
    return LAWS[name] if name in LAWS else SMOOTHERS[name]
