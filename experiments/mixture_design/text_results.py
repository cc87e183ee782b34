"""Judges the design of a mixture for real text: what it promises, and what papers say of such designs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import xarray
from scipy.stats import spearmanr

from experiments.mixture_design.text_analysis import (
    Analysis,
    SwarmSize,
    analysed,
    interval,
    objective,
    resampled_spearman,
)
from mixjax import design
from mixjax.runner.claims import Claim, paired, versus

__all__ = ["claims"]

_DESIGN = "mixjax.design"
_LAWS = "Ye et al., Data mixing laws, 2024"
_REGMIX = "Liu et al., RegMix, 2024"
_OLMIX = "Chen et al., Olmix, 2026"
_MARIN = "marin-community/marin"
# Nats per token, and the correlation that is asked for; chosen before the runs.
_REGRET, _SPEARMAN = 0.01, 0.95


def claims(results: Mapping[str, xarray.Dataset]) -> list[Claim]:
    """Judges what is promised of the design, and the sentences of papers."""
    (data,) = results.values()
    data = data.isel(seed=0, drop=True)
    found = analysed(data)
    return [
        *_predictions(data, found),
        *_validated(found.validation, "", "at the size of the proxies"),
        *_grid(data),
        *_sizes(found),
        *_epochs(data, found),
        *_large(data, found),
    ]


def _predictions(data: xarray.Dataset, found: Analysis) -> list[Claim]:
    """Judges how the laws predict runs that they have not seen."""
    fitted = found.proposal.fitted
    best, groups = fitted.scores[0], fitted.swarm.groups()
    firsts = np.unique(groups, return_index=True)[1]
    # Runs of a mixture are resampled together, by their means.
    measured = _by_mixture(objective(fitted.swarm.losses), groups)
    value, draws = resampled_spearman(objective(best.predicted[firsts]), measured)
    by_law = {scores.law: scores for scores in fitted.scores}
    rows = [
        _judged(
            "held_out_spearman",
            value,
            draws,
            ">=",
            _SPEARMAN,
            statement="ours: the law ranks mixtures that it has not seen, by the mean of the domains' losses",
            source=_DESIGN,
            note=f"Spearman's correlation with the means over the repeats; {best.law}; least of a domain, a single run "
            f"each: {best.spearman.min():.3f}; {_ceiling(objective(data.loss.values[..., : data.sizes['domain']]))}",
        )
    ]
    if "log_linear" in by_law:
        relative = 1.0 - _by_mixture(by_law["log_linear"].errors, groups)
        rows.append(
            versus(
                "exponential_form",
                relative,
                ">=",
                0.9,
                statement="the loss is a constant plus an exponential of a linear combination of the proportions "
                "[here: log_linear's R² on left-out runs, mean of the domains]",
                source=_LAWS,
                note="each seed is a mixture; the threshold is ours",
            )
        )
    for name in ("power", "quadratic"):
        if {"log_linear", name} <= by_law.keys():
            rows.append(
                paired(
                    f"exponential_better_than_{name}",
                    _by_mixture(by_law["log_linear"].errors, groups),
                    "<",
                    _by_mixture(by_law[name].errors, groups),
                    statement=f"ours: the exponential form predicts left-out runs better than the law {name!r}",
                    source=_LAWS,
                    note="squared errors in units of the losses' variances; each seed is a mixture",
                )
            )
    return rows


def _validated(validation: design.Validation, suffix: str, where: str) -> list[Claim]:
    """Judges a proposal against the other mixtures on fresh paired seeds."""
    own = validation.values[validation.proposal]
    verdicts = {verdict.name: verdict for verdict in validation.verdicts}
    return [
        paired(
            f"better_than_{name}{suffix}",
            own,
            "<",
            values,
            statement=f"ours: the proposal has a lower mean loss than {_words(name)}, {where}",
            source=_DESIGN,
            note=str(verdicts[name]),
        )
        for name, values in validation.values.items()
        if name not in (validation.proposal, "all_rows")
    ]


def _grid(data: xarray.Dataset) -> list[Claim]:
    """Judges what the proposal for three domains loses to the best of a grid of trained mixtures."""
    values = objective(data.finalist_loss.values.astype(np.float64))
    rng = np.random.default_rng(0)
    drawn = rng.integers(values.shape[1], size=(2000, values.shape[1]))
    resampled = values[:, drawn].mean(axis=-1)
    value = float(values[0].mean() - values[1:].mean(axis=1).min())
    return [
        _judged(
            "regret",
            value,
            resampled[0] - resampled[1:].min(axis=0),
            "<=",
            _REGRET,
            statement=f"ours: the proposal of a swarm of {data.sizes['three']} mixtures of three domains is as good as "
            f"the best of {data.sizes['grid']} mixtures that were all trained",
            source=_DESIGN,
            note=f"mean loss above the lowest of the {len(values) - 1} best of the grid, {values.shape[1]} fresh "
            "paired seeds; the minimum of several means is too low, which counts against the proposal",
        )
    ]


def _sizes(found: Analysis) -> list[Claim]:
    """Judges what is said of the number of runs."""
    rows = []
    several = len(found.proposal.weights)
    for name, sizes, domains in (("three", found.three_sizes, 3), ("all", found.sizes, several)):
        enough = [each for each in sizes if each.num_mixtures == 4 * domains]
        rows += [
            versus(
                f"runs_for_{name}_domains",
                each.regret,
                "<=",
                _REGRET,
                statement=f"the number of runs that is needed grows as the number of domains, O(m) [here: 4 m mixtures "
                f"of m = {domains} domains lose no more than {_REGRET} nats]",
                source=_OLMIX,
                note=f"each seed is a random part of the swarm; regret by the law of all runs; {_size_text(sizes)}",
            )
            for each in enough
        ]
    if len(found.sizes) > 1:
        rows.append(
            versus(
                "larger_swarms",
                found.sizes[0].regret.mean() - found.sizes[-1].regret,
                ">=",
                0.0,
                statement="a larger swarm will be more reliable [here: regret of "
                f"{found.sizes[0].num_mixtures} mixtures less that of {found.sizes[-1].num_mixtures}]",
                source=f"{_MARIN}#5364",
                note="each seed is a random part of the swarm",
            )
        )
    return rows


def _size_text(sizes: tuple[SwarmSize, ...]) -> str:
    return ", ".join(f"{each.num_mixtures} mixtures: {each.regret.mean():.4f}" for each in sizes)


def _epochs(data: xarray.Dataset, found: Analysis) -> list[Claim]:
    """Judges whether proxies must repeat rows as the big run does."""
    fresh = objective(data.candidate_loss.values[..., : data.sizes["domain"]].astype(np.float64))
    names = data.candidate.values.tolist()
    own_low, own_high = interval(found.own_distances)
    return [
        paired(
            "simulated_epochs_are_better",
            fresh[names.index("proposal")],
            "<",
            fresh[names.index("all_rows")],
            statement="repetition mismatch [here: where rows are repeated, the proposal of proxies that repeat them "
            "too has a lower loss than that of proxies that do not]",
            source=f"{_MARIN}#2345",
            note=str({verdict.name: verdict for verdict in found.validation.verdicts}["all_rows"]),
        ),
        _judged(
            "proposal_without_simulated_epochs_is_far",
            0.5 * float(np.abs(found.proposal.weights - found.all_rows.weights).sum()),
            found.distances,
            ">=",
            # Proposals of resampled swarms differ as well, which must not count as an effect of the epochs.
            0.05 + own_high,
            statement="with repetition control proposals are within 0.05 of the optimum, without it 0.75 away [here: "
            "the proposal without simulated epochs is further from the one with them than 0.05 and what resampling the "
            "swarm moves]",
            source=f"{_MARIN}#2345",
            note="half the sum of the shares' absolute differences; proposals of resampled swarms are "
            f"{own_low:.3f} to {own_high:.3f} from their own",
        ),
    ]


def _large(data: xarray.Dataset, found: Analysis) -> list[Claim]:
    """Judges whether the order of mixtures holds at the large size."""
    invariance = {
        "statement": "rank invariance: the ranking of mixtures is the same across model sizes and numbers of tokens "
        "[here: Spearman's correlation of the mean losses at both sizes]",
        "source": _REGMIX,
    }
    if found.large is None:
        return [_undecided("rank_invariance", note="no runs at the large size", **invariance)]
    domains = data.sizes["domain"]
    small = objective(data.loss.values[data.transfer_place.values][..., :domains]).mean(axis=1)
    value, draws = resampled_spearman(small, objective(data.transfer_loss.values[..., :domains]))
    return [
        *_validated(found.large, "_large", "at the large size"),
        _judged(
            "rank_invariance",
            value,
            draws,
            ">=",
            0.9,
            note=f"{len(small)} mixtures of the swarm, evenly from the best to the worst; the threshold is ours",
            **invariance,
        ),
    ]


def _judged(
    name: str,
    value: float,
    draws: np.ndarray,
    side: Literal[">=", "<="],
    threshold: float,
    *,
    statement: str,
    source: str,
    note: str,
) -> Claim:
    """Judges a number by the 90 % interval of its resampled values, which must lie on one side of the threshold."""
    low, high = interval(draws)
    above, below = low >= threshold, high <= threshold
    holds, fails = (above, below) if side == ">=" else (below, above)
    verdict = True if holds else (False if fails else None)
    return Claim(
        name=name,
        statement=statement,
        source=source,
        value=value,
        stderr=float(np.nanstd(draws, ddof=1)),
        threshold=threshold,
        num_seeds=len(draws),
        holds=verdict,
        note=f"90 % interval {low:.4f} to {high:.4f}, by {len(draws)} resamples; {note}",
    )


def _undecided(name: str, statement: str, source: str, note: str) -> Claim:
    return Claim(name, statement, source, None, None, None, 0, None, note)


def _ceiling(repeats: np.ndarray) -> str:
    """Says how well a law without any error could rank means over repeats ``[mixtures, repeats]``, by their noise."""
    num = repeats.shape[1]
    if num < 2:
        return "the noise is not known"
    single = float(spearmanr(repeats[:, 0], repeats[:, 1]).statistic)
    # Spearman and Brown's formula for the reliability of a mean; a law without error has the root of it.
    reliability = num * single / (1.0 + (num - 1) * single)
    return (
        f"two runs of a mixture have {single:.3f}, so that a law without error would have about {reliability**0.5:.3f}"
    )


def _by_mixture(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, values) / np.bincount(groups)


def _words(name: str) -> str:
    return {"swarm_best": "the swarm's best mixture", "unimax": "UniMax's mixture"}.get(name, f"the {name} mixture")
