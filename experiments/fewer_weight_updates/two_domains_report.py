"""Builds the experiment of two_domains.toml with its claims and its figure."""

import matplotlib.pyplot as plt
import numpy as np

from experiments.fewer_weight_updates import two_domains
from experiments.fewer_weight_updates.sentences import quote
from experiments.fewer_weight_updates.two_domains import METHODS, OTHERS, TwoDomains, best_share, excess, last_share
from experiments.shared.figures import points
from experiments.shared.sentences import text
from mixjax.runner.claims import near, versus
from mixjax.runner.experiment import Experiment

# The positions of the targets.
INSIDE, VERTEX = 0, 1
# A share of weight equals its closed form if it is this close to it.
CLOSE = 1e-3
OURS = {"source": "paper 001, abstract"}


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


def claims(data, config: TwoDomains) -> list:
    """Judges the abstract's sentence on T = 1, the closed forms, the vertex and the counterfactual."""
    inside = data.isel(target=INSIDE)
    target, longest = config.targets[INSIDE], max(config.horizons)

    def share(method, T, where=INSIDE):
        return data.share.isel(target=where).sel({"method": method, "horizon": T})

    def off(method):
        """Returns the largest distance from the closed forms, over targets and T."""
        closed = np.array([[last_share(method, u, T, config.epsilon) for T in config.horizons] for u in config.targets])
        return abs(data.share.sel({"method": method}).transpose("seed", "target", "horizon") - closed).max(
            ("target", "horizon")
        )

    def ends(name, method, what):
        note = f"largest distance over both targets and T = {', '.join(map(str, config.horizons))}"
        return versus(name, off(method), "<=", CLOSE, statement=f"ours: {what}", **OURS, note=note)

    def flips(method):
        wrong = share(method, 1, VERTEX)
        right = share(method, longest, VERTEX)
        note = (
            f"p at T = 1 less p at T = {longest}, u = {config.targets[VERTEX]}, where p* = 0: {text(wrong)} and "
            f"{text(right)}"
        )
        statement = (
            f"ours: {METHODS[method]} with T = 1 ends at the vertex of the wrong domain, with a long T at the right one"
        )
        return near(f"vertex_{method}", wrong - right, 1.0, 0.01, statement=statement, **OURS, note=note)

    uniform = excess(0.5, target)
    ratios = {T: excess(share("mirror_descent", T), target) / uniform for T in config.horizons}
    by_horizon = ", ".join(f"{T}: {text(ratio)}" for T, ratio in ratios.items())
    far = abs(OTHERS - 0.5) > 0.05
    errors = np.log(abs(inside.predicted - inside.actual).isel(horizon=-1, other=far))
    distances = np.log(abs(OTHERS[far] - 0.5))
    spread = distances - distances.mean()
    orders = (errors.transpose("seed", "other") * spread).sum("other") / np.square(spread).sum()
    return [
        versus(
            "one_step_fails",
            ratios[1],
            ">=",
            1.0,
            **quote("one_step_fails"),
            note="excess validation loss of the optimum for the last weights over that of uniform weights "
            f"({uniform:g}), mirror descent, u = {target}, by T: {by_horizon}; the example is ours",
        ),
        versus(
            "long_horizon_learns",
            ratios[longest],
            "<=",
            0.01,
            statement=f"ours: there T = {longest} leaves less than a hundredth of uniform weights' excess loss",
            **OURS,
        ),
        ends("closed_form_mirror_descent", "mirror_descent", "mirror descent ends at p_T, whatever T and the start"),
        ends("closed_form_projected_gradient", "projected_gradient", "so does projected gradient"),
        ends(
            "closed_form_reset",
            "reset",
            "with the parameters reset to 0 every round it ends elsewhere, at (u_1 + π_2 u_2) / (1 + π_2²), for T = 1 "
            "further from p*",
        ),
        ends("closed_form_alignment", "alignment", "without the steps' curvature every T ends where T = 1 does"),
        ends("closed_form_implicit", "implicit", "the implicit function theorem's hypergradient is right at every T"),
        flips("mirror_descent"),
        flips("projected_gradient"),
        near(
            "counterfactual_order",
            orders,
            2.0,
            0.05,
            statement="ours: the loss predicted for other weights errs by the square of their distance",
            **OURS,
            note=f"exponent of the error in |p' - 1/2|, T = {longest}, u = {target}",
        ),
    ]


def figure(data, config: TwoDomains):
    """Draws what T steps show, the weights and their way to the end, the parameters, the vertex and other weights."""
    drawn, axes = plt.subplots(2, 3, figsize=(14, 8.4), layout="constrained")
    fine = np.unique(np.geomspace(1, max(config.horizons), 60).round().astype(int))
    colors = dict(zip(config.horizons, plt.cm.viridis(np.linspace(0, 0.9, len(config.horizons))), strict=True))
    first = data.isel(target=INSIDE, seed=0).sel({"method": "mirror_descent"})
    target = config.targets[INSIDE]

    for coordinate, curvature in enumerate((1.0, config.epsilon)):
        color = f"C{coordinate}"
        axes[0, 0].plot(fine, 1 - (1 - curvature) ** fine, color=color, lw=1.2, label=f"curvature λ = {curvature:g}")
        measured = data.response.isel(target=INSIDE, coordinate=coordinate).mean("seed")
        axes[0, 0].plot(data.horizon, measured, "o", ms=5, color=color)
    axes[0, 0].set(
        xscale="log", xlabel="T (steps a round)", ylabel="share of the response seen after T steps", ylim=(0, 1.05)
    )
    axes[0, 0].set_title("dots: measured, lines: 1 - (1 - λ)^T")

    for axis, where in ((axes[0, 1], INSIDE), (axes[1, 1], VERTEX)):
        u = config.targets[where]
        for number, (method, label) in enumerate(METHODS.items()):
            shares, color = data.share.isel(target=where).sel({"method": method}), f"C{number}"
            style = {"fmt": "osD^v"[number], "ms": 9 - 1.4 * number, "color": color, "label": label, "mfc": "none"}
            points(axis, data.horizon, shares, **style)
            axis.plot(fine, [last_share(method, u, T, config.epsilon) for T in fine], color=color, lw=1)
        axis.axhline(best_share(u), color="0.3", ls="--", lw=1)
        axis.axhline(0.5, color="0.6", ls=":", lw=1)
        axis.set(
            xscale="log", xlabel="T (steps a round)", ylabel="last weight p of the first domain", ylim=(-0.05, 1.05)
        )
        axis.set_title(f"u = {u}; lines: closed forms; dashed: p*, dotted: uniform")

    for T, color in colors.items():
        run = first.sel(horizon=T)
        axes[0, 2].plot(run["round"] * T, run.rounds, color=color, lw=1.3, label=f"T = {T}")
        axes[1, 0].plot(*run.theta.transpose("coordinate", "round"), ".-", color=color, lw=0.9, ms=4, label=f"T = {T}")
        order = data.isel(target=INSIDE).sel(horizon=T).mean("seed")
        axes[1, 2].plot(OTHERS, order.predicted, color=color, ls="--", lw=1)
        axes[1, 2].plot(OTHERS, order.actual, color=color, lw=1.4, label=f"T = {T}")
    axes[0, 2].axhline(best_share(target), color="0.3", ls="--", lw=1)
    axes[0, 2].set(xscale="log", xlabel="training steps", ylabel="weight p of the first domain", ylim=(0, 1))
    axes[0, 2].set_title(f"mirror descent, one start, u = {target}; dashed: p*")

    x, y = np.meshgrid(np.linspace(-2, 2.2, 120), np.linspace(-2, 2.2, 120))
    axes[1, 0].contour(
        x, y, ((x - target[0]) ** 2 + (y - target[1]) ** 2) / 2, levels=12, colors="0.85", linewidths=0.7
    )
    axes[1, 0].plot([0, 1], [0, 1], color="0.3", lw=2.5, alpha=0.5, label="optima for all weights")
    axes[1, 0].plot(*target, "k*", ms=9, label="u")
    axes[1, 0].plot(*[best_share(target)] * 2, "kx", ms=7, label="best of them")
    axes[1, 0].set(xlabel="θ_1 (curvature 1)", ylabel=f"θ_2 (curvature {config.epsilon:g})", aspect="equal")
    axes[1, 0].set_title("parameters after each round, the same start")
    axes[1, 2].set(xlabel="other weight p' in place of 1/2", ylabel="validation loss after T steps")
    axes[1, 2].set_title("had other weights been used\nsolid: actual, dashed: first order")

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
