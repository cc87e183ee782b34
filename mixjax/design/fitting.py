"""Fits a law to the losses of a swarm, with a bootstrap over its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixjax.checks import check_choice, check_integer
from mixjax.design.choosing import cross_validate
from mixjax.design.fitted import Fitted, fit_law, law_names
from mixjax.design.runs import as_swarm

__all__ = ["fit"]


def fit(
    mixtures: Any,
    losses: Any,
    law: str | Sequence[str] = "auto",
    seed: int = 0,
    *,
    budgets: Any = None,
    resamples: int = 1000,
    domains: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Fitted:
    """Fits a law from mixture to losses, each metric alone, and again to resamples of the runs.

    The fit minimises Huber's loss, from several starts. The resamples are those of a wild bootstrap: all runs of a
    mixture keep their residuals from the fit or change their sign, together.

    ======================== ============================================================ ==========================
    law                      losses as a function of the mixture                          compared by "auto"
    ======================== ============================================================ ==========================
    ``"log_linear"``         :func:`mixjax.design.laws.log_linear`, exponential           yes, also with budgets
    ``"power"``              :func:`mixjax.design.laws.power`, of effective data          yes, also with budgets
    ``"quadratic"``          :func:`mixjax.design.laws.quadratic`, pairs of domains       yes, without budgets
    ``"gaussian_process"``   :func:`mixjax.design.laws.gaussian_process`, smooth          no: takes minutes
    ``"lightgbm"``           :func:`mixjax.design.laws.boosted_trees`, of any shape       no: minutes, extra package
    ======================== ============================================================ ==========================

    Args:
        mixtures: ``[n, D]``, the share of each domain in each run; an array or a data frame. Runs with equal shares are
            repeats with other seeds.
        losses: ``[n, M]``, what is to be low: held-out losses of domains, bits per byte, errors.
        law: a name, several names for the one of them that predicts left-out runs best, or "auto" for the best of those
            that the table says; see :func:`mixjax.design.cross_validate`.
        seed: seed of the bootstrap and of the parts of the cross-validation.
        budgets: ``[n]``, the tokens that each run was trained on, where they differ. The law is then one in tokens and
            mixture, which predicts and proposes at any ``budget``, also beyond those of the runs.
        resamples: number of resamples, at least 20; of LightGBM at most 100 are made.
        domains: names of the domains; by default the columns of a data frame, or "domain_0" and so on.
        metrics: names of the metrics; by default the columns of a data frame, or "loss_0" and so on.

    Returns:
        The fitted law, whose ``predict`` gives intervals.

    Raises:
        TypeError: entries that are no numbers.
        ValueError: an unknown law, a law without a form in tokens for runs of several budgets, fewer mixtures than the
            law has parameters, or runs that :func:`as_swarm` refuses.
        ImportError: a package of a named law is missing; the error names the extra.

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
    check_integer("resamples", resamples, 20)
    check_integer("seed", seed, 0)
    swarm = as_swarm(mixtures, losses, domains=domains, metrics=metrics, budgets=budgets)
    names = [law] if isinstance(law, str) else list(law)
    for name in names:
        check_choice("law", name, ("auto", *law_names(swarm)))
    if names == ["auto"] or len(names) != 1:
        if "auto" in names[1:] or not names:
            raise ValueError(f"law must be 'auto', a name, or several names without 'auto', got {law!r}.")
        scores = cross_validate(swarm, None if names == ["auto"] else names, seed=seed)
        return fit_law(scores[0].law, swarm, resamples=resamples, seed=seed, scores=scores)
    return fit_law(names[0], swarm, resamples=resamples, seed=seed)
