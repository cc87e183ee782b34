"""Judges whether the best T grows like log N, on quadratics with full gradients (full_gradients.toml)."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates import budgets, laws
from experiments.fewer_weight_updates.budgets import METRICS, Budgets
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
from mixjax.runner.experiment import Experiment

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


def full_gradients(config: Budgets) -> Experiment:
    """Builds the experiment: learning rates are the sweep's axis, weight rules the runs."""
    return budgets.experiment(config, figure, claims)


def by_rate(data) -> dict[float, object]:
    """Returns the data set of each learning rate, in the order of the sweep: the largest first."""
    return {round(float(eta), 6): data.sel(learning_rate=eta) for eta in data.learning_rate}


def law(best: Best) -> np.ndarray:
    """Returns the R² of ``a + b log N`` less that of the best ``a N^b``: above 0 where T grows like log N."""
    return explained(best, "log") - explained(best, "power")


def claims(results) -> list:
    """Judges the law, its constant, the settings in which there is no law, and the library's choice of T."""
    seeds = results["sqrt"].sizes["seed"]
    best = {
        name: {eta: settled(best_horizons(data, "mean_weights")) for eta, data in by_rate(results[name]).items()}
        for name in RULES
    }
    decay = {eta: 2 * contraction(data) for eta, data in by_rate(results["sqrt"]).items()}
    largest = next(iter(decay))

    def told(name):
        """Writes best T, slopes and powers for each learning rate."""
        return "; ".join(
            f"η = {eta:g}: best T at N = {listed(b.budgets)}: {listed(b.horizons[0])}, slope {interval(log_slope(b))}, "
            f"q = {interval(laws.order(b))}, R² of log N {explained(b, 'log')[0]:.4f}, of a power "
            f"{explained(b, 'power')[0]:.4f}"
            for eta, b in best[name].items()
        )

    def constant(name):
        ratios = [decay[eta] * log_slope(b) / laws.order(b) for eta, b in best[name].items()]
        return judged(
            f"slope_{name}",
            np.mean(ratios, 0),
            1 - TOLERANCE,
            1 + TOLERANCE,
            1.0,
            seeds,
            f"slope of the best T over log N, in units of the predicted one, mean over learning rates; {told(name)}",
            statement="ours: the best T grows by q / (-2 log(1 - ημ)) for each unit of log N, where the excess falls "
            f"like (T / N)^q; {RULES[name]}",
            **OURS,
        )

    def auto(name, metric):
        ratios = {eta: laws.auto_ratio(data, metric) for eta, data in by_rate(results[name]).items()}
        least = {eta: best_horizons(data, metric).losses[0, -1] for eta, data in by_rate(results[name]).items()}
        by_budget = "; ".join(
            f"η = {eta:g}: {listed(ratio[0])} (the best T's at the largest N: {least[eta]:.2g})"
            for eta, ratio in ratios.items()
        )
        return judged(
            f"auto_{name}_{metric}",
            np.exp(np.mean([np.log(ratio).mean(-1) for ratio in ratios.values()], 0)),
            0.0,
            NEAR_BEST,
            NEAR_BEST,
            seeds,
            f"excess loss in units of the best T's, geometric mean over N and learning rates; by N: {by_budget}. T is "
            "the grid's nearest, and the steps that measure the contraction cost nothing here",
            statement=f"ours: mixing.horizon's T is within a factor {NEAR_BEST:g} of the best fixed T; {RULES[name]}, "
            f"{METRICS[metric]}",
            **OURS,
        )

    last = {eta: settled(best_horizons(d, "last_weights")) for eta, d in by_rate(results["adaptive"]).items()}
    lost = best_horizons(by_rate(results[TOO_LARGE])[largest], "mean_weights")
    greedy = laws.resampled_means(
        by_rate(results["sqrt"])[largest].mean_weights.transpose("seed", "budget", "horizon").isel(horizon=0)
    )
    half = len(lost.budgets) // 2
    q_one = [decay[eta] * log_slope(b) for eta, b in best["sqrt"].items()]
    return [
        judged(
            "log_n_full_gradients",
            np.min([law(b) for b in best["sqrt"].values()], 0),
            0.0,
            np.inf,
            0.0,
            seeds,
            f"R² of a + b log N less R² of the best power law, at the learning rate where it is least; "
            f"{RULES['sqrt']}, mean of the weights, the budgets in which the best T leaves 16 rounds; "
            f"{told('sqrt')}. Over all budgets: "
            + ", ".join(
                f"η = {eta:g}: {interval(law(best_horizons(data, 'mean_weights')))}"
                for eta, data in by_rate(results["sqrt"]).items()
            ),
            **quote("log_n_full_gradients"),
        ),
        judged(
            "slope_first_order",
            np.mean(q_one, 0),
            1 - TOLERANCE,
            1 + TOLERANCE,
            1.0,
            seeds,
            "slope times -2 log(1 - ημ), mean over learning rates; by learning rate: "
            + ", ".join(map(interval, q_one)),
            statement="ours: the best T grows by 1 / (-2 log(1 - ημ)) for each unit of log N, q = 1 as for any step of "
            f"α ~ 1 / √R with many rounds; {RULES['sqrt']}",
            **OURS,
        ),
        *(constant(name) for name in RULES),
        judged(
            "one_step_does_not_learn",
            greedy[:, -1] / greedy[:, 0],
            0.5,
            np.inf,
            0.5,
            seeds,
            f"excess of T = 1 at the largest N over that at the least, η = {largest:g}; by N: {listed(greedy[0])}",
            statement="ours: T = 1 gains nothing from more budget",
            **OURS,
        ),
        judged(
            "last_weights_no_law",
            -law(last[largest]),
            0.0,
            np.inf,
            0.0,
            seeds,
            f"R² of the best power law less R² of a + b log N at η = {largest:g}; "
            + "; ".join(
                f"η = {eta:g}: best T {listed(b.horizons[0])} from N = {b.budgets[0]} on, exponent "
                f"{interval(laws.exponent(b))}, difference of R² {interval(-law(b))}"
                for eta, b in last.items()
            ),
            statement="ours: with the last weights, which at an optimum inside the simplex converge linearly, the best "
            "T grows like a power of N instead; AdaGrad-norm, the default",
            **OURS,
        ),
        judged(
            "too_large_no_law",
            lost.losses[:, half] / lost.losses[:, -1],
            0.0,
            2.0,
            2.0,
            seeds,
            f"excess at the best T at N = {lost.budgets[half]} over that at N = {lost.budgets[-1]}; η = {largest:g}; "
            f"best T {listed(lost.horizons[0])}, excess {listed(lost.losses[0])}",
            statement="ours: with too large a constant α the excess stops falling, and there is no law",
            **OURS,
        ),
        auto("sqrt", "mean_weights"),
        auto("adaptive", "mean_weights"),
        auto("adaptive", "last_weights"),
    ]


def figure(results):
    """Draws the loss against T, the best T against N, settings without a law, and the cost of horizon's T."""
    drawn, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    rates = by_rate(results["sqrt"])
    laws.losses(axes[0, 0], next(iter(rates.values())), "mean_weights")
    axes[0, 0].set_title(f"{RULES['sqrt']}, η = {next(iter(rates)):g}, mean of the weights\ndots: best T")
    for axis, name in zip((axes[0, 1], axes[0, 2], axes[1, 0]), ("sqrt", "adaptive", "constant"), strict=True):
        for number, (eta, data) in enumerate(by_rate(results[name]).items()):
            best = best_horizons(data, "mean_weights")
            kept, color = settled(best), f"C{number}"
            laws.best_with_bars(axis, best, color=color, label=f"η = {eta:g}")
            x, y = np.log(kept.budgets), kept.horizons[0]
            predicted = laws.order(kept)[0] / (2 * contraction(data))
            axis.plot(kept.budgets, y.mean() + predicted * (x - x.mean()), color=color, lw=1.2)
            power = np.exp(np.log(y).mean() + laws.exponent(kept)[0] * (x - x.mean()))
            axis.plot(kept.budgets, power, color=color, lw=1, ls=":")
        axis.set(xscale="log", xlabel="N (training steps)", ylabel="best T", ylim=(0, 1.3 * best.horizons[0].max()))
        axis.set_title(f"{RULES[name]}, mean of the weights\nline: slope q / (-2 log(1-ημ)), dotted: power law")
    shown = {
        "mean of the weights": ("adaptive", "mean_weights"),
        "last weights": ("adaptive", "last_weights"),
        "α too large, mean of the weights": (TOO_LARGE, "mean_weights"),
    }
    for number, (label, (name, metric)) in enumerate(shown.items()):
        best = best_horizons(next(iter(by_rate(results[name]).values())), metric)
        laws.best_with_bars(axes[1, 1], best, color=f"C{number + 3}", label=label)
    axes[1, 1].set(xscale="log", yscale="log", xlabel="N (training steps)", ylabel="best T")
    axes[1, 1].set_title(f"where log N is not to be seen, η = {next(iter(rates)):g}\n{RULES['adaptive']}")
    for number, (eta, data) in enumerate(by_rate(results["adaptive"]).items()):
        for metric, ls in (("mean_weights", "-"), ("last_weights", "--")):
            ratio = laws.auto_ratio(data, metric)
            label = f"η = {eta:g}, {METRICS[metric]}"
            laws.band(axes[1, 2], data.budget, ratio, color=f"C{number}", ls=ls, label=label)
    axes[1, 2].set(xscale="log", yscale="log", xlabel="N (training steps)", ylabel="excess loss / that of the best T")
    axes[1, 2].set_title(f"mixing.horizon's T\n{RULES['adaptive']}")
    return laws.finish(drawn, results["sqrt"], "full gradients")
