"""Builds the experiment of two_domains.toml, and draws its figure."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates import two_domains
from experiments.fewer_weight_updates.two_domains import METHODS, OTHERS, TwoDomains, best_share, last_share
from experiments.fewer_weight_updates.two_domains_claims import INSIDE, VERTEX, claims
from experiments.shared.figures import points
from mixjax.runner.experiment import Experiment


def experiment(config: TwoDomains) -> Experiment:
    """Builds the experiment."""
    runs, rounds = ("target", "method", "horizon"), range(1, config.num_rounds + 1)
    return Experiment(
        train=lambda key, hparams, data: two_domains.train(key, config),
        data=None,
        dims={
            "share": runs,
            "rounds": (*runs, "round"),
            "theta": (*runs, "round", "coordinate"),
            "response": ("target", "horizon", "coordinate"),
            "predicted": ("target", "horizon", "other"),
            "actual": ("target", "horizon", "other"),
        },
        coords={"method": list(METHODS), "horizon": list(config.horizons), "round": rounds, "other": OTHERS},
        units={"share": "1", "rounds": "1", "theta": "1", "response": "1", "predicted": "loss", "actual": "loss"},
        figure=lambda results: figure(next(iter(results.values())), config),
        claims=lambda results: claims(next(iter(results.values())), config),
    )


def figure(data, config: TwoDomains):
    """Draws what T steps show, the weights and their way to the end, the parameters, the vertex and other weights."""
    drawn, axes = plt.subplots(2, 3, figsize=(14, 8.4), layout="constrained")
    fine = np.unique(np.geomspace(1, max(config.horizons), 60).round().astype(int))
    colors = dict(zip(config.horizons, plt.cm.viridis(np.linspace(0, 0.9, len(config.horizons))), strict=True))
    _responses(axes[0, 0], data, config, fine)
    _last_weights(axes[0, 1], data, config, fine, INSIDE)
    _last_weights(axes[1, 1], data, config, fine, VERTEX)
    _way(axes[0, 2], data, config, colors)
    _plane(axes[1, 0], data, config, colors)
    _others(axes[1, 2], data, colors)
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
        axis.title.set_fontsize(10)
    for axis in axes.flat[[0, 2, 3, 5]]:
        axis.legend(fontsize=8)
    drawn.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS), fontsize=9)
    drawn.suptitle(
        f"Papers 001 and 002: two domains, weights moved every T of {config.num_steps} steps, "
        f"{data.sizes['seed']} starts",
        fontsize=11,
    )
    return drawn


def _responses(axis, data, config: TwoDomains, fine):
    """Draws the share of the parameters' response that is seen after T steps."""
    for coordinate, curvature in enumerate((1.0, config.epsilon)):
        color = f"C{coordinate}"
        axis.plot(fine, 1 - (1 - curvature) ** fine, color=color, lw=1.2, label=f"curvature λ = {curvature:g}")
        measured = data.response.isel(target=INSIDE, coordinate=coordinate).mean("seed")
        axis.plot(data.horizon, measured, "o", ms=5, color=color)
    axis.set(
        xscale="log", xlabel="T (steps a round)", ylabel="share of the response seen after T steps", ylim=(0, 1.05)
    )
    axis.set_title("dots: measured, lines: 1 - (1 - λ)^T")


def _last_weights(axis, data, config: TwoDomains, fine, where: int):
    """Draws the last weight of every method over T on one target, with its closed form."""
    u = config.targets[where]
    for number, (method, label) in enumerate(METHODS.items()):
        shares, color = data.share.isel(target=where).sel({"method": method}), f"C{number}"
        style = {"fmt": "osD^v"[number], "ms": 9 - 1.4 * number, "color": color, "label": label, "mfc": "none"}
        points(axis, data.horizon, shares, **style)
        axis.plot(fine, [last_share(method, u, T, config.epsilon) for T in fine], color=color, lw=1)
    axis.axhline(best_share(u), color="0.3", ls="--", lw=1)
    axis.axhline(0.5, color="0.6", ls=":", lw=1)
    axis.set(xscale="log", xlabel="T (steps a round)", ylabel="last weight p of the first domain", ylim=(-0.05, 1.05))
    axis.set_title(f"u = {u}; lines: closed forms; dashed: p*, dotted: uniform")


def _first_start(data):
    """Returns the runs of mirror descent on the first target from the first start."""
    return data.isel(target=INSIDE, seed=0).sel({"method": "mirror_descent"})


def _way(axis, data, config: TwoDomains, colors):
    """Draws the weight of the first domain over training, from one start."""
    target = config.targets[INSIDE]
    for T, color in colors.items():
        run = _first_start(data).sel(horizon=T)
        axis.plot(run["round"] * T, run.rounds, color=color, lw=1.3, label=f"T = {T}")
    axis.axhline(best_share(target), color="0.3", ls="--", lw=1)
    axis.set(xscale="log", xlabel="training steps", ylabel="weight p of the first domain", ylim=(0, 1))
    axis.set_title(f"mirror descent, one start, u = {target}; dashed: p*")


def _plane(axis, data, config: TwoDomains, colors):
    """Draws the parameters after each round in the plane, from one start."""
    target = config.targets[INSIDE]
    for T, color in colors.items():
        run = _first_start(data).sel(horizon=T)
        axis.plot(*run.theta.transpose("coordinate", "round"), ".-", color=color, lw=0.9, ms=4, label=f"T = {T}")
    x, y = np.meshgrid(np.linspace(-2, 2.2, 120), np.linspace(-2, 2.2, 120))
    axis.contour(x, y, ((x - target[0]) ** 2 + (y - target[1]) ** 2) / 2, levels=12, colors="0.85", linewidths=0.7)
    axis.plot([0, 1], [0, 1], color="0.3", lw=2.5, alpha=0.5, label="optima for all weights")
    axis.plot(*target, "k*", ms=9, label="u")
    best = best_share(target)
    axis.plot(best, best, "kx", ms=7, label="best of them")
    axis.set(xlabel="θ_1 (curvature 1)", ylabel=f"θ_2 (curvature {config.epsilon:g})", aspect="equal")
    axis.set_title("parameters after each round, the same start")


def _others(axis, data, colors):
    """Draws the validation loss had other weights been used: actual and predicted."""
    for T, color in colors.items():
        order = data.isel(target=INSIDE).sel(horizon=T).mean("seed")
        axis.plot(OTHERS, order.predicted, color=color, ls="--", lw=1)
        axis.plot(OTHERS, order.actual, color=color, lw=1.4, label=f"T = {T}")
    axis.set(xlabel="other weight p' in place of 1/2", ylabel="validation loss after T steps")
    axis.set_title("had other weights been used\nsolid: actual, dashed: first order")
