"""Computes what the design of a mixture for real text is judged by, from the losses of its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray
from scipy.stats import spearmanr

from mixjax import design

__all__ = [
    "CANDIDATES",
    "LARGE_CANDIDATES",
    "Analysis",
    "SwarmSize",
    "analysed",
    "interval",
    "objective",
    "proposal_of",
    "resampled_spearman",
    "swarm_sizes",
]

CANDIDATES = ("proposal", "swarm_best", "uniform", "proportional", "temperature", "unimax", "all_rows")
LARGE_CANDIDATES = ("proposal", "swarm_best", "uniform", "proportional")

_DRAWS = 12  # of subsets of each size, and of resampled swarms


class SwarmSize(NamedTuple):
    """Holds what swarms of one size lead to.

    Attributes:
        num_mixtures: number of mixtures.
        spearman: ``[draws]``, the rank correlation of predicted and measured objectives of the other mixtures.
        regret: ``[draws]``, the objective of the proposal above the least one, both by the law of all runs.
    """

    num_mixtures: int
    spearman: np.ndarray
    regret: np.ndarray


class Analysis(NamedTuple):
    """Holds fits and proposals of a result.

    Attributes:
        proposal: from the swarm with simulated epochs.
        all_rows: from the swarm that draws from all rows.
        distances: ``[draws]``, how far apart the two are in resampled swarms: half the sum of absolute differences of
            the shares.
        own_distances: ``[draws]``, how far the proposal of a resampled swarm is from the proposal of the swarm.
        three: from the small swarm of three domains.
        sizes: swarms of several sizes, for all domains.
        three_sizes: the same for three domains.
        validation: the verdicts at the size of the proxies.
        large: the verdicts at the large size, or None.
    """

    proposal: design.Proposal
    all_rows: design.Proposal
    distances: np.ndarray
    own_distances: np.ndarray
    three: design.Proposal
    sizes: tuple[SwarmSize, ...]
    three_sizes: tuple[SwarmSize, ...]
    validation: design.Validation
    large: design.Validation | None


_KEPT: dict[str, Analysis] = {}


def analysed(data: xarray.Dataset) -> Analysis:
    """Fits all laws of a result; figure, claims and summary share one analysis.

    Args:
        data: the metrics of a single seed.

    Returns:
        The analysis.
    """
    # A data set has no hash, and its fits take a minute.
    key = hashlib.sha256(data.loss.values.tobytes() + data.finalist_loss.values.tobytes()).hexdigest()
    if key not in _KEPT:
        _KEPT[key] = _analysed(data)
    return _KEPT[key]


def _analysed(data):
    domains, metrics = data.domain.values.tolist(), data.metric.values.tolist()
    prior, mixtures, three_domains = data.prior.values, data.mixture.values, data.grid_domain.values.tolist()
    sizes = dict(zip(domains, prior, strict=True))
    three_prior = np.array([sizes[name] for name in three_domains])
    losses = {name: data[name].values.astype(np.float64) for name in ("loss", "all_rows_loss", "three_loss")}
    three_prior /= three_prior.sum()
    limits = data.limit.values
    proposal = proposal_of(mixtures, losses["loss"], domains, metrics, prior, limits)
    all_rows = proposal_of(mixtures, losses["all_rows_loss"], domains, metrics, prior, limits)
    three = proposal_of(
        data.three_mixture.values,
        losses["three_loss"],
        three_domains,
        three_domains,
        three_prior,
        data.grid_limit.values,
    )
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(mixtures), size=len(mixtures))
        own = _again(proposal, mixtures[drawn], losses["loss"][drawn])
        pairs.append((_distance(own, _again(all_rows, mixtures[drawn], losses["all_rows_loss"][drawn])), own))
    kept = len(domains)
    validation = _validated(data.candidate_loss.values[..., :kept], CANDIDATES, domains)
    large = None
    if "large_loss" in data:
        large = _validated(data.large_loss.values[..., :kept], LARGE_CANDIDATES, domains)
    return Analysis(
        proposal=proposal,
        all_rows=all_rows,
        distances=np.array([distance for distance, _ in pairs]),
        own_distances=np.array([_distance(own, proposal.weights) for _, own in pairs]),
        three=three,
        sizes=swarm_sizes(proposal, mixtures, losses["loss"][..., :kept]),
        three_sizes=swarm_sizes(three, data.three_mixture.values, losses["three_loss"]),
        validation=validation,
        large=large,
    )


def _validated(losses, names, domains):
    return design.validate(dict(zip(names, losses, strict=True)), metrics=domains)


def proposal_of(
    mixtures: np.ndarray,
    losses: np.ndarray,
    domains: Sequence[str],
    metrics: Sequence[str],
    prior: np.ndarray,
    limits: np.ndarray,
) -> design.Proposal:
    """Fits the law that predicts left-out runs best, and proposes the mixture of the least mean loss over the domains.

    Args:
        mixtures: ``[n, D]``.
        losses: ``[n, repeats, M]``; the first D metrics are the domains' own.
        domains: the names of the domains.
        metrics: the names of the metrics.
        prior: ``[D]``, the natural shares.
        limits: ``[D]``, the largest shares.

    Returns:
        The proposal.
    """
    num = len(domains)
    fitted = design.fit(*_runs(mixtures, losses[..., :num]), domains=domains, metrics=list(metrics[:num]))
    return design.propose(fitted, prior=prior, max_share=limits)


def swarm_sizes(proposal: design.Proposal, mixtures: np.ndarray, losses: np.ndarray) -> tuple[SwarmSize, ...]:
    """Draws smaller swarms from a swarm, and compares what they lead to.

    Args:
        proposal: the proposal of the whole swarm.
        mixtures: ``[n, D]``.
        losses: ``[n, repeats, D]``.

    Returns:
        Sizes of 2 D, 3 D, 4 D, 8 D and 16 D mixtures, as far as a quarter of the mixtures are left to be predicted.
    """
    domains = len(proposal.weights)
    measured = losses.mean(axis=(1, 2))
    found = []
    for times in (2, 3, 4, 8, 16):
        num, rng = times * domains, np.random.default_rng(times)
        if num > 0.75 * len(mixtures):
            break
        rows = []
        for _ in range(_DRAWS):
            order = rng.permutation(len(mixtures))
            drawn, others = order[:num], order[num:]
            fitted = _fitted(proposal, mixtures[drawn], losses[drawn])
            predicted = fitted.predict(mixtures[others])[0].mean(axis=1)
            shares = design.propose(fitted, max_share=proposal.bounds.high).weights
            at = objective(proposal.fitted.predict(np.stack([shares, proposal.weights]))[0])
            rows.append((spearmanr(predicted, measured[others]).statistic, at[0] - at[1]))
        spearman, regret = np.array(rows).T
        found.append(SwarmSize(num, spearman, regret))
    return tuple(found)


def _runs(mixtures, losses):
    return mixtures.repeat(losses.shape[1], axis=0), losses.reshape(-1, losses.shape[-1])


def _fitted(proposal, mixtures, losses):
    """Fits the law of a proposal to other runs, with the fewest resamples, since only the fit itself is used."""
    kept = losses[..., : len(proposal.weights)]
    law = proposal.fitted.law
    if len(np.unique(mixtures, axis=0)) <= design.laws.LAWS[law].num_parameters(mixtures.shape[1]):
        law = "log_linear"
    return design.fit(*_runs(mixtures, kept), law=law, resamples=20)


def _again(proposal, mixtures, losses):
    return design.propose(_fitted(proposal, mixtures, losses), max_share=proposal.bounds.high).weights


def _distance(a, b):
    return 0.5 * np.abs(a - b).sum()


def objective(losses: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis, the domains."""
    return losses.mean(axis=-1)


def resampled_spearman(a: np.ndarray, b: np.ndarray, num: int = 1000) -> tuple[float, np.ndarray]:
    """Computes a rank correlation over mixtures, and those of resampled mixtures ``[num]``."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(a), size=(num, len(a)))
    return float(spearmanr(a, b).statistic), np.array([spearmanr(a[rows], b[rows]).statistic for rows in drawn])


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Returns the ends of the 90 % interval of draws."""
    low, high = np.nanquantile(draws, [0.05, 0.95])
    return float(low), float(high)
