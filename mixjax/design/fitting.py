"""Fits a law to the losses of a swarm, with a bootstrap over its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixjax.checks import check_choice, check_integer
from mixjax.design.choosing import cross_validate
from mixjax.design.fitted import Fitted, fit_law
from mixjax.design.laws import LAWS
from mixjax.design.runs import as_swarm

__all__ = ["fit"]


def fit(
    mixtures: Any,
    losses: Any,
    law: str = "auto",
    seed: int = 0,
    *,
    resamples: int = 1000,
    domains: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Fitted:
    """Fits a law from mixture to losses, each metric alone, and again to resamples of the runs.

    The fit minimises Huber's loss, from several starts. The resamples are those of a wild bootstrap: all runs of a
    mixture keep their residuals from the fit or change their sign, together.

    Args:
        mixtures: ``[n, D]``, the share of each domain in each run; an array or a data frame. Runs with equal shares are
            repeats with other seeds.
        losses: ``[n, M]``, what is to be low: held-out losses of domains, bits per byte, errors.
        law: a name of :data:`mixjax.design.laws.LAWS`, or "auto" for the law that predicts left-out runs best, see
            :func:`mixjax.design.cross_validate`.
        seed: seed of the bootstrap and of the parts of the cross-validation.
        resamples: number of resamples, at least 20.
        domains: names of the domains; by default the columns of a data frame, or "domain_0" and so on.
        metrics: names of the metrics; by default the columns of a data frame, or "loss_0" and so on.

    Returns:
        The fitted law, whose ``predict`` gives intervals.

    Raises:
        TypeError: entries that are no numbers.
        ValueError: an unknown law, fewer mixtures than the law has parameters, or runs that :func:`as_swarm` refuses.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> mixtures = rng.dirichlet(np.ones(3), 40)
        >>> losses = 2.0 + np.exp(mixtures @ rng.normal(size=(3, 2))) + 0.01 * rng.normal(size=(40, 2))
        >>> fitted = fit(mixtures, losses, law="log_linear", resamples=100)
        >>> mean, low, high = fitted.predict([[0.2, 0.3, 0.5]])
        >>> bool((low <= mean).all() and (mean <= high).all())
        True
    """
    check_choice("law", law, ("auto", *LAWS))
    check_integer("resamples", resamples, 20)
    swarm = as_swarm(mixtures, losses, domains=domains, metrics=metrics)
    scores = ()
    if law == "auto":
        scores = cross_validate(swarm, seed=seed)
        law = scores[0].law
    return fit_law(law, swarm, resamples=resamples, seed=seed, scores=scores)
