"""Judges whether the best T with stochastic gradients grows like √(N log N) (stochastic_gradients.toml)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates import budgets, laws
from experiments.fewer_weight_updates.budgets import METRICS, Budgets
from experiments.fewer_weight_updates.laws import Best, best_horizons, explained, exponent, interval, judged, listed
from experiments.fewer_weight_updates.sentences import quote
from mixjax.runner.claims import Claim
from mixjax.runner.experiment import Experiment

# Names of the runs whose learning rate falls with T.
RULES = {
    "sqrt": "α ~ 1 / √R",
    "constant": "constant α",
    "adaptive": "AdaGrad-norm, the default",
}
# Names of the runs of one learning rate.
FIXED = ("fixed", "fixed_large")
# An exponent may differ from the predicted one by this much.
TOLERANCE = 0.1
# The T of mixing.horizon may have this many times the loss of the best T.
NEAR_BEST = 1.5
OURS = {"source": "paper 001, abstract"}


def stochastic_gradients(config: Budgets) -> Experiment:
    """Builds the experiment: learning rates and weight rules are the runs."""
    return budgets.experiment(config, figure, claims)


def root(n) -> np.ndarray:
    """Returns √(N log N)."""
    return np.sqrt(n * np.log(n))


class Findings(NamedTuple):
    """Holds what the claims look at.

    Attributes:
        results: run name -> data set.
        best: run name -> the best T of the mean weights.
        exponent: the exponent that √(N log N) has on the budgets' range.
        seeds: the number of instances.
    """

    results: Mapping[str, Any]
    best: dict[str, Best]
    exponent: float
    seeds: int


def claims(results) -> list[Claim]:
    """Judges the law, the contrast with a fixed learning rate, and the library's choice of T."""
    best = {name: best_horizons(results[name], "mean_weights") for name in (*RULES, *FIXED)}
    budget = best["sqrt"].budgets
    exponent = float(laws.slope(np.log(budget), np.log(root(budget))))
    found = Findings(results, best, exponent, results["sqrt"].sizes["seed"])
    return [
        _grows(
            found,
            "sqrt_n_log_n_stochastic_gradients",
            best["sqrt"],
            f"{RULES['sqrt']}, mean of the weights, η_T ~ log T / T",
            **quote("sqrt_n_log_n_stochastic_gradients"),
        ),
        *(
            _grows(
                found,
                f"sqrt_n_log_n_{name}",
                best[name],
                "mean of the weights",
                statement=f"ours: the same with {RULES[name]}",
                **OURS,
            )
            for name in ("constant", "adaptive")
        ),
        _grows(
            found,
            "sqrt_n_log_n_last_parameters",
            best_horizons(results["sqrt"], "params"),
            f"{RULES['sqrt']}; the largest T of the grid is {results['sqrt'].horizon.values[-1]}",
            statement=f"ours: the same for the loss of the {METRICS['params']}",
            **OURS,
        ),
        *(_logarithmic(found, name) for name in FIXED),
        _falling_rate(found),
        *(_auto(found, name) for name in (*RULES, *FIXED)),
    ]


def _told(best: Best) -> str:
    """Writes best T, its ratio to √(N log N), and how well each law explains it."""
    return (
        f"best T at N = {listed(best.budgets)}: {listed(best.horizons[0])}; over √(N log N): "
        f"{listed(best.horizons[0] / root(best.budgets))}; q = {interval(laws.order(best))}; R² of log N "
        f"{explained(best, 'log')[0]:.4f}, of a power {explained(best, 'power')[0]:.4f}"
    )


def _grows(found: Findings, name: str, best: Best, note: str, **sentence) -> Claim:
    """Judges whether the best T grows like √(N log N), by its exponent."""
    return judged(
        name,
        exponent(best),
        low=found.exponent - TOLERANCE,
        high=found.exponent + TOLERANCE,
        target=found.exponent,
        seeds=found.seeds,
        note=f"exponent of the best T, {note}; √(N log N) itself has {found.exponent:.3f} on this range; {_told(best)}",
        **sentence,
    )


def _logarithmic(found: Findings, name: str) -> Claim:
    best, data = found.best[name], found.results[name]
    units = 2 * laws.contraction(data) * laws.log_slope(best)
    return judged(
        f"log_n_{name}",
        explained(best, "log") - explained(best, "power"),
        low=0.0,
        high=np.inf,
        target=0.0,
        seeds=found.seeds,
        note="R² of a + b log N less R² of the best power law; slope in units of 1 / (-2 log(1 - ημ)) "
        f"{interval(units)}; exponent {interval(exponent(best))}; {_told(best)}",
        statement=f"ours: with a learning rate that does not fall with T, η = {data.eta.mean():.3g}, the best T "
        "grows like log N with stochastic gradients too",
        **OURS,
    )


def _falling_rate(found: Findings) -> Claim:
    falling, fixed = found.best["sqrt"], found.best["fixed_large"]
    return judged(
        "falling_rate_needed",
        falling.losses[:, -1] / fixed.losses[:, -1],
        low=0.0,
        high=0.5,
        target=0.5,
        seeds=found.seeds,
        note=f"excess at the best T, N = {falling.budgets[-1]}, over that at a fixed η = "
        f"{found.results['fixed_large'].eta.mean():.3g}; by N: "
        + "; ".join(f"{name}: {listed(best.losses[0])}" for name, best in found.best.items()),
        statement="ours: with a fixed large learning rate noise leaves a floor that more budget does not lower",
        **OURS,
    )


def _auto(found: Findings, name: str) -> Claim:
    ratio = laws.auto_ratio(found.results[name], "mean_weights")
    label = RULES[name] if name in RULES else f"fixed η = {found.results[name].eta.mean():.3g}"
    return judged(
        f"auto_{name}",
        np.exp(np.log(ratio).mean(-1)),
        low=0.0,
        high=NEAR_BEST,
        target=NEAR_BEST,
        seeds=found.seeds,
        note="excess of the mean weights in units of the best T's, geometric mean over N; by N: " + listed(ratio[0]),
        statement=f"ours: mixing.horizon's T is within a factor {NEAR_BEST:g} of the best fixed T; {label}",
        **OURS,
    )


def figure(results):
    """Draws the loss against T, the best T against N and over √(N log N), and the cost of horizon's T."""
    drawn, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    budget = results["sqrt"].budget.values
    laws.losses(axes[0, 0], results["sqrt"], "mean_weights")
    axes[0, 0].set_title(f"{RULES['sqrt']}, η_T ~ log T / T, mean of the weights\ndots: best T")
    labels = {name: f"{label}, η_T ~ log T / T" for name, label in RULES.items()} | {
        name: f"α ~ 1 / √R, η = {results[name].eta.mean():.3g}" for name in FIXED
    }
    for number, (name, data) in enumerate((name, results[name]) for name in labels):
        best, color = best_horizons(data, "mean_weights"), f"C{number}"
        laws.best_with_bars(axes[0, 1] if name in RULES else axes[1, 0], best, color=color)
        laws.band(axes[0, 2], budget, best.horizons / root(budget), color=color)
        laws.band(axes[1, 1], budget, best.losses, color=color)
        laws.band(axes[1, 2], budget, laws.auto_ratio(data, "mean_weights"), color=color)
        if name in FIXED:
            x = np.log(budget) - np.log(budget).mean()
            axes[1, 0].plot(budget, best.horizons[0].mean() + laws.log_slope(best)[0] * x, color=color, lw=1)
    middle = best_horizons(results["constant"], "mean_weights").horizons[0]
    guide = root(budget) * np.exp(np.log(middle / root(budget)).mean())
    axes[0, 1].plot(budget, guide, color="0.3", lw=1, ls="--", label="√(N log N), through constant α")
    axes[0, 1].set(yscale="log", ylabel="best T", title="learning rate falling with T")
    axes[0, 2].set(yscale="log", ylabel="best T / √(N log N)", title="flat: the law of the abstract")
    axes[1, 0].set(ylabel="best T", title="fixed learning rate; lines: log N", ylim=0)
    axes[1, 1].set(yscale="log", ylabel="excess validation loss (mean)", title="at the best T, mean of the weights")
    axes[1, 2].set(ylabel="excess loss / that of the best T", title="mixing.horizon's T")
    for axis in axes.flat[1:]:
        axis.set(xscale="log", xlabel="N (training steps)")
    drawn.legend(axes[1, 1].lines, labels.values(), loc="outside lower center", ncols=len(labels), fontsize=9)
    return laws.finish(drawn, results["sqrt"], "stochastic gradients")
