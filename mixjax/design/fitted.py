"""Holds a law fitted to a swarm, with resamples of the fit from which predictions get intervals."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixjax.checks import check_choice
from mixjax.design.bootstrap import fit_point, redrawn_losses
from mixjax.design.laws import LAWS
from mixjax.design.runs import Swarm, as_mixtures

if TYPE_CHECKING:
    from mixjax.design.choosing import Scores

__all__ = ["Fitted", "fit_law"]

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
    """

    law: str
    swarm: Swarm
    params: np.ndarray
    resampled: np.ndarray
    noise: np.ndarray
    scores: tuple[Scores, ...]
    seed: int

    def predict(
        self, mixtures: Any, interval: Literal["mean", "run"] = "mean"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicts the losses of mixtures, with 90 % intervals.

        Args:
            mixtures: ``[m, D]``, or a data frame with the domains as columns.
            interval: ``"mean"`` gives intervals for the mean loss over seeds, if the law holds. ``"run"`` gives those
                for a single new run, whose noise comes on top.

        Returns:
            The predictions and the ends of the intervals, ``[m, M]`` each.

        Raises:
            ValueError: mixtures that are none, or another interval.

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
        law = LAWS[self.law]
        mean = law.predict(self.params, mixtures)
        low, high = np.empty_like(mean), np.empty_like(mean)
        size = max(_ENTRIES // (self.resampled.shape[0] * self.resampled.shape[1]), 1)
        rng = np.random.default_rng([self.seed, 1])
        for i in range(0, len(mixtures), size):
            at = slice(i, i + size)
            drawn = law.predict(self.resampled, mixtures[at])
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
    law, groups = LAWS[name], swarm.groups()
    num_params, num_mixtures = law.num_parameters(len(swarm.domains)), groups.max() + 1
    if num_mixtures <= num_params:
        raise ValueError(
            f"the law {name!r} has {num_params} parameters for {len(swarm.domains)} domains and needs more mixtures "
            f"than that, got {num_mixtures}."
        )
    point = fit_point(law, swarm.mixtures, swarm.losses, groups)
    drawn = redrawn_losses(point, groups, resamples, np.random.default_rng([seed, 0]))
    num, num_metrics, num_runs = drawn.shape
    # Each resample starts where the fit ended.
    starts = np.broadcast_to(point.params, (num, *point.params.shape)).reshape(num * num_metrics, -1)
    limits = np.tile(point.delta, num)
    resampled = law.fit(swarm.mixtures, drawn.reshape(-1, num_runs), limits, starts)
    return Fitted(
        law=name,
        swarm=swarm,
        params=point.params,
        resampled=resampled.reshape(num, num_metrics, -1),
        noise=point.noise,
        scores=scores,
        seed=seed,
    )
