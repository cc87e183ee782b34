"""Judges whether the best T grows like log N with full gradients (full_gradients.toml)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.fewer_weight_updates import laws
from experiments.fewer_weight_updates.budgets import METRICS
from experiments.fewer_weight_updates.laws import (
    Best,
    best_horizons,
    contraction,
    explained,
    interval,
    judged,
    listed,
    log_slope,
    settled,
)
from experiments.fewer_weight_updates.sentences import quote
from mixjax.runner.claims import Claim

# Names of the runs.
RULES = {
    "sqrt": "α ~ 1 / √R",
    "smaller": "α ~ 1 / √R, half the step",
    "larger": "α ~ 1 / √R, twice the step",
    "constant": "constant α",
    "adaptive": "AdaGrad-norm, the default",
}
# The run with a constant α at which the weights do not settle.
TOO_LARGE = "too_large"
# A slope may differ from the predicted one by this share of it.
TOLERANCE = 0.25
# The T of mixing.horizon may have this many times the loss of the best T.
NEAR_BEST = 1.5
OURS = {"source": "paper 001, abstract"}


def by_rate(data) -> dict[float, object]:
    """Returns the data set of each learning rate, in the order of the sweep: the largest first."""
    return {round(float(eta), 6): data.sel(learning_rate=eta) for eta in data.learning_rate}


def law(best: Best) -> np.ndarray:
    """Returns the R² of ``a + b log N`` less that of the best ``a N^b``: above 0 where T grows like log N."""
    return explained(best, "log") - explained(best, "power")


class Findings(NamedTuple):
    """Holds what the claims look at.

    Attributes:
        results: run name -> data set.
        best: run name -> learning rate -> the best T of the mean weights, at the budgets in which it is settled.
        decay: learning rate -> ``-2 log(1 - ημ)``.
        seeds: the number of instances.
        largest: the largest learning rate.
    """

    results: Mapping[str, Any]
    best: dict[str, dict[float, Best]]
    decay: dict[float, float]
    seeds: int
    largest: float


def claims(results) -> list[Claim]:
    """Judges the law, its constant, the settings in which there is no law, and the library's choice of T."""
    decay = {eta: 2 * contraction(data) for eta, data in by_rate(results["sqrt"]).items()}
    best = {
        name: {eta: settled(best_horizons(data, "mean_weights")) for eta, data in by_rate(results[name]).items()}
        for name in RULES
    }
    found = Findings(results, best, decay, results["sqrt"].sizes["seed"], next(iter(decay)))
    return [
        _logarithmic(found),
        _first_order(found),
        *(_slope_of(found, name) for name in RULES),
        _one_step(found),
        _last_weights(found),
        _too_large(found),
        _auto(found, "sqrt", "mean_weights"),
        _auto(found, "adaptive", "mean_weights"),
        _auto(found, "adaptive", "last_weights"),
    ]


def _told(best: Mapping[float, Best]) -> str:
    """Writes best T, slopes and powers for each learning rate."""
    return "; ".join(
        f"η = {eta:g}: best T at N = {listed(b.budgets)}: {listed(b.horizons[0])}, slope {interval(log_slope(b))}, "
        f"q = {interval(laws.order(b))}, R² of log N {explained(b, 'log')[0]:.4f}, of a power "
        f"{explained(b, 'power')[0]:.4f}"
        for eta, b in best.items()
    )


def _logarithmic(found: Findings) -> Claim:
    best, at_all_budgets = found.best["sqrt"], by_rate(found.results["sqrt"])
    return judged(
        "log_n_full_gradients",
        np.min([law(b) for b in best.values()], 0),
        low=0.0,
        high=np.inf,
        target=0.0,
        seeds=found.seeds,
        note=f"R² of a + b log N less R² of the best power law, at the learning rate where it is least; "
        f"{RULES['sqrt']}, mean of the weights, the budgets in which the best T leaves 16 rounds; "
        f"{_told(best)}. Over all budgets: "
        + ", ".join(
            f"η = {eta:g}: {interval(law(best_horizons(data, 'mean_weights')))}" for eta, data in at_all_budgets.items()
        ),
        **quote("log_n_full_gradients"),
    )


def _first_order(found: Findings) -> Claim:
    slopes = [found.decay[eta] * log_slope(b) for eta, b in found.best["sqrt"].items()]
    return judged(
        "slope_first_order",
        np.mean(slopes, 0),
        low=1 - TOLERANCE,
        high=1 + TOLERANCE,
        target=1.0,
        seeds=found.seeds,
        note="slope times -2 log(1 - ημ), mean over learning rates; by learning rate: "
        + ", ".join(map(interval, slopes)),
        statement="ours: the best T grows by 1 / (-2 log(1 - ημ)) for each unit of log N, q = 1 as for any step of "
        f"α ~ 1 / √R with many rounds; {RULES['sqrt']}",
        **OURS,
    )


def _slope_of(found: Findings, name: str) -> Claim:
    ratios = [found.decay[eta] * log_slope(b) / laws.order(b) for eta, b in found.best[name].items()]
    return judged(
        f"slope_{name}",
        np.mean(ratios, 0),
        low=1 - TOLERANCE,
        high=1 + TOLERANCE,
        target=1.0,
        seeds=found.seeds,
        note="slope of the best T over log N, in units of the predicted one, mean over learning rates; "
        f"{_told(found.best[name])}",
        statement="ours: the best T grows by q / (-2 log(1 - ημ)) for each unit of log N, where the excess falls "
        f"like (T / N)^q; {RULES[name]}",
        **OURS,
    )


def _one_step(found: Findings) -> Claim:
    excess = by_rate(found.results["sqrt"])[found.largest].mean_weights.transpose("seed", "budget", "horizon")
    greedy = laws.resampled_means(excess.isel(horizon=0))
    return judged(
        "one_step_does_not_learn",
        greedy[:, -1] / greedy[:, 0],
        low=0.5,
        high=np.inf,
        target=0.5,
        seeds=found.seeds,
        note=f"excess of T = 1 at the largest N over that at the least, η = {found.largest:g}; by N: "
        f"{listed(greedy[0])}",
        statement="ours: T = 1 gains nothing from more budget",
        **OURS,
    )


def _last_weights(found: Findings) -> Claim:
    rates = by_rate(found.results["adaptive"])
    last = {eta: settled(best_horizons(data, "last_weights")) for eta, data in rates.items()}
    return judged(
        "last_weights_no_law",
        -law(last[found.largest]),
        low=0.0,
        high=np.inf,
        target=0.0,
        seeds=found.seeds,
        note=f"R² of the best power law less R² of a + b log N at η = {found.largest:g}; "
        + "; ".join(
            f"η = {eta:g}: best T {listed(b.horizons[0])} from N = {b.budgets[0]} on, exponent "
            f"{interval(laws.exponent(b))}, difference of R² {interval(-law(b))}"
            for eta, b in last.items()
        ),
        statement="ours: with the last weights, which at an optimum inside the simplex converge linearly, the best "
        "T grows like a power of N instead; AdaGrad-norm, the default",
        **OURS,
    )


def _too_large(found: Findings) -> Claim:
    lost = best_horizons(by_rate(found.results[TOO_LARGE])[found.largest], "mean_weights")
    half = len(lost.budgets) // 2
    return judged(
        "too_large_no_law",
        lost.losses[:, half] / lost.losses[:, -1],
        low=0.0,
        high=2.0,
        target=2.0,
        seeds=found.seeds,
        note=f"excess at the best T at N = {lost.budgets[half]} over that at N = {lost.budgets[-1]}; "
        f"η = {found.largest:g}; best T {listed(lost.horizons[0])}, excess {listed(lost.losses[0])}",
        statement="ours: with too large a constant α the excess stops falling, and there is no law",
        **OURS,
    )


def _auto(found: Findings, name: str, metric: str) -> Claim:
    rates = by_rate(found.results[name])
    ratios = {eta: laws.auto_ratio(data, metric) for eta, data in rates.items()}
    least = {eta: best_horizons(data, metric).losses[0, -1] for eta, data in rates.items()}
    by_budget = "; ".join(
        f"η = {eta:g}: {listed(ratio[0])} (the best T's at the largest N: {least[eta]:.2g})"
        for eta, ratio in ratios.items()
    )
    return judged(
        f"auto_{name}_{metric}",
        np.exp(np.mean([np.log(ratio).mean(-1) for ratio in ratios.values()], 0)),
        low=0.0,
        high=NEAR_BEST,
        target=NEAR_BEST,
        seeds=found.seeds,
        note=f"excess loss in units of the best T's, geometric mean over N and learning rates; by N: {by_budget}. T is "
        "the grid's nearest, and the steps that measure the contraction cost nothing here",
        statement=f"ours: mixing.horizon's T is within a factor {NEAR_BEST:g} of the best fixed T; {RULES[name]}, "
        f"{METRICS[metric]}",
        **OURS,
    )
