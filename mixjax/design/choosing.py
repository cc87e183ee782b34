"""Compares laws by how they predict runs that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mixjax.checks import check_choice, check_integer
from mixjax.design.fitted import fit_law, law_names, law_of
from mixjax.design.laws import LAWS, TOKEN_LAWS
from mixjax.design.runs import Swarm

__all__ = ["Scores", "cross_validate", "verdict"]


class Scores(NamedTuple):
    """Holds how a law predicts left-out runs, a number for each metric.

    Attributes:
        law: the law's name.
        spearman: ``[M]``, the rank correlation of predicted and measured losses.
        r2: ``[M]``, one minus the squared error over the variance of the losses; 1 is perfect, 0 no better than the
            mean.
        coverage: ``[M]``, the share of left-out runs within their 90 % interval for a new run.
        predicted: ``[n, M]``, the prediction for each run by the fit that has not seen it.
        errors: ``[n]``, each run's squared error in units of the metrics' variances, averaged over the metrics. Laws
            are compared by its mean.
    """

    law: str
    spearman: np.ndarray
    r2: np.ndarray
    coverage: np.ndarray
    predicted: np.ndarray
    errors: np.ndarray


def cross_validate(
    swarm: Swarm, laws: str | Sequence[str] | None = None, *, folds: int = 5, seed: int = 0, resamples: int = 50
) -> tuple[Scores, ...]:
    """Fits each law without a part of the mixtures and predicts that part, for each part in turn.

    All runs of a mixture are left out together; a fit that has seen a repeat of a run has seen its answer.

    Args:
        swarm: the runs, from :func:`mixjax.design.as_swarm` or :func:`mixjax.design.read_tables`.
        laws: a name, or several, as :func:`mixjax.design.fit` takes them; by default all of
            :data:`mixjax.design.laws.LAWS`, or of :data:`mixjax.design.laws.TOKEN_LAWS` for runs of several budgets,
            for which the swarm has enough mixtures.
        folds: number of parts into which the mixtures are split at random, at least 2.
        seed: seed of the parts and of the resamples.
        resamples: number of resamples of each fit, for the intervals.

    Returns:
        The scores of the laws, the best first.

    Raises:
        ValueError: an unknown law, or too few mixtures for a law that was named, or for all.

    Example:
        >>> import mixjax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> mixtures = rng.dirichlet(np.ones(3), 40)
        >>> losses = np.exp(-3 * mixtures) + 0.01 * rng.normal(size=(40, 3))
        >>> [scores.law for scores in cross_validate(mixjax.design.as_swarm(mixtures, losses), resamples=20)]
        ['log_linear', 'power', 'quadratic']
    """
    check_integer("folds", folds, 2)
    check_integer("seed", seed, 0)
    laws = [laws] if isinstance(laws, str) else laws
    for name in laws or ():
        check_choice("laws", name, law_names(swarm))
    # A mixture at another budget is a repeat too.
    groups = swarm.groups(across_budgets=True)
    num_mixtures = groups.max() + 1
    folds = min(folds, num_mixtures)
    left = num_mixtures - -(-num_mixtures // folds)
    size = swarm.inputs().shape[1]
    known = LAWS if swarm.budgets is None else TOKEN_LAWS
    numbers = {name: law_of(name, swarm).num_parameters(size) for name in known}
    names = tuple(laws or [name for name, number in numbers.items() if number < left])
    if not names:
        need = min(numbers.values()) + 1
        raise ValueError(
            f"to compare laws for {len(swarm.domains)} domains, {need} mixtures must be left when one of {folds} parts "
            f"is left out, got {num_mixtures} mixtures in all; add runs, or name a law."
        )
    parts = np.random.default_rng([seed, 2]).permutation(num_mixtures)[groups] % folds
    scored = [_score(name, swarm, parts, seed, resamples) for name in names]
    return tuple(sorted(scored, key=lambda scores: scores.errors.mean()))


def _score(name, swarm, parts, seed, resamples):
    predicted, inside = np.empty_like(swarm.losses), np.empty(swarm.losses.shape, bool)
    for part in range(parts.max() + 1):
        out = parts == part
        fitted = fit_law(name, swarm.part(~out), resamples=resamples, seed=seed)
        budgets = None if swarm.budgets is None else swarm.budgets[out]
        mean, low, high = fitted.predict(swarm.mixtures[out], "run", budget=budgets)
        predicted[out], inside[out] = mean, (low <= swarm.losses[out]) & (swarm.losses[out] <= high)
    relative = np.square(swarm.losses - predicted) / swarm.losses.var(axis=0)
    spearman = [np.corrcoef(_ranks(p), _ranks(y))[0, 1] for p, y in zip(predicted.T, swarm.losses.T, strict=True)]
    return Scores(
        law=name,
        spearman=np.array(spearman),
        r2=1.0 - relative.mean(axis=0),
        coverage=inside.mean(axis=0),
        predicted=predicted,
        errors=relative.mean(axis=1),
    )


def verdict(scores: Sequence[Scores], swarm: Swarm) -> str:
    """Says which law predicts left-out runs best, and by how much.

    Args:
        scores: from :func:`cross_validate`.
        swarm: the runs.

    Returns:
        A sentence. Its standard error is that of a mean over mixtures, whose repeats count once.
    """
    best = scores[0]
    text = f"{best.law} predicts left-out runs best: R² {_short(best.r2.mean())}"
    if len(scores) == 1:
        return f"{best.law} alone was tried: R² {_short(best.r2.mean())} on left-out runs"
    groups = swarm.groups(across_budgets=True)
    gaps = np.bincount(groups, scores[1].errors - best.errors) / np.bincount(groups)
    mean, stderr = gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))
    text += f"; {scores[1].law} {_short(scores[1].r2.mean())}, {mean:.2g} ± {stderr:.1g} less"
    return text + ("" if mean > 2 * stderr else ", which is no clear difference")


def _ranks(values):
    """Ranks numbers from 1; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[place]


def _short(value):
    return f"{value:.4f}"
