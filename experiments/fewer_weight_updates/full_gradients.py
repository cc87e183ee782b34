"""Trains quadratics with full gradients, where the best T grows like log N, and draws it (full_gradients.toml)."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates import budgets, laws
from experiments.fewer_weight_updates.budgets import METRICS, Budgets
from experiments.fewer_weight_updates.full_gradients_claims import RULES, TOO_LARGE, by_rate, claims
from experiments.fewer_weight_updates.laws import best_horizons, contraction, settled
from mixjax.runner.experiment import Experiment


def full_gradients(config: Budgets) -> Experiment:
    """Builds the experiment: learning rates are the sweep's axis, weight rules the runs."""
    return budgets.experiment(config, figure, claims)


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
