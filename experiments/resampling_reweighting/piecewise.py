"""The experiment on figures 1 and 5 of paper 003: which methods leave the global minimum's basin, at which step sizes.

The example has two groups with slopes 1 and K (section 2.1 and appendix C.1).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from experiments.resampling_reweighting.runs import at, by_rate, interval
from experiments.resampling_reweighting.sentences import quote
from experiments.resampling_reweighting.two_slopes import LEFT, METHODS, SOURCE, Piecewise, exits, experiment_of
from experiments.shared.sentences import text
from mixjax.runner.claims import Claim, near, paired, versus
from mixjax.runner.experiment import Experiment

__all__ = ["claims", "figure", "piecewise"]

# A method "stays" if at least this share of its runs stays.
STAY = 0.95


def piecewise(config: Piecewise) -> Experiment:
    """Builds the experiment that shows figures 1 and 5: which runs leave the global minimum's basin."""
    return experiment_of(config, figure, claims)


def claims(data, config: Piecewise) -> list:
    """Judges what figures 1 and 5 show, within the steps that were run."""
    left = (data.left_at <= config.num_steps).astype(float)
    exact = {method: exits(method, config, config.shown[0]) for method in METHODS}
    return [
        *_stays(data, left, exact, config),
        *_wider_ranges(left, config),
        _oscillates_less(data, left),
        *(_follows_chain(method, left, exact[method], config) for method in METHODS),
    ]


def _stays(data, left, exact, config) -> list:
    """Judges which methods leave the global minimum's basin at figure 1's learning rate."""
    rate, steps = config.shown[0], config.num_steps

    def told(method):
        return f"{interval(at(left, rate, method))} left within {steps} steps, exactly {exact[method]:.2g}"

    def remains(name, method, **sentence):
        note = f"share of runs that stay, learning rate {rate:g}; {told(method)}"
        return versus(name, 1.0 - at(left, rate, method), ">=", STAY, **sentence, note=note)

    median = np.median(at(data.left_at, rate, "sgd"))
    jumps = f"share of runs below {LEFT:g} at learning rate {rate:g}; {told('sgd')}; median step {median:.0f}"
    ours = {"statement": "ours: so does RR by gradient norms, eq. 3.5", "source": SOURCE}
    return [
        versus("sgd_jumps", at(left, rate, "sgd"), ">=", 0.5, **quote("sgd_jumps"), note=jumps),
        remains("rr_stays", "static", **quote("rr_stays")),
        remains("rr_stays_per_term", "per_term", **ours),
    ]


def _wider_ranges(left, config) -> list:
    """Judges at how many learning rates of the grid a run stays, RR against SGD."""
    stays = {method: (1.0 - left.sel({"method": method})).sum("learning_rate") for method in METHODS}
    note = (
        f"number of the grid's learning rates at which a run stays for {config.num_steps} steps; shares that left, "
        f"{' / '.join(METHODS)}, by learning rate: {by_rate(left)}"
    )

    def wider(name, method, **sentence):
        return paired(name, stays[method], ">", stays["sgd"], **sentence, note=note)

    ours = {"statement": "ours: so is RR by gradient norms, eq. 3.5", "source": SOURCE}
    return [
        wider("rr_wider_range", "static", **quote("rr_wider_range")),
        wider("rr_wider_range_per_term", "per_term", **ours),
    ]


def _oscillates_less(data, left) -> Claim:
    """Judges how far the parameter moves about the minimum, at the learning rates where no run left."""
    calm = data.learning_rate.where((left.sel({"method": ["sgd", "static"]}) == 0).all(("seed", "method")), drop=True)
    spread = data.spread.sel(learning_rate=calm).mean("learning_rate")
    sgd, rr = (spread.sel({"method": method}) for method in ("sgd", "static"))
    note = (
        "standard deviation of theta over the second half, mean over the learning rates where no run left, "
        f"{text(rr)} against {text(sgd)}"
    )
    return paired("rr_oscillates_less", rr, "<", sgd, **quote("rr_oscillates_less"), note=note)


def _follows_chain(method, left, exact, config) -> Claim:
    """Judges whether as many runs left as the exact walk says, within four standard errors."""
    rate = config.shown[0]
    # Where the exact probability is near 0 or 1 its own variance would allow next to nothing, hence the 1e-3.
    tolerance = 4 * np.sqrt(max(exact * (1 - exact), 1e-3) / left.sizes["seed"])
    return near(
        f"exact_chain_{method}",
        at(left, rate, method),
        exact,
        tolerance,
        statement=f"ours: the runs of {METHODS[method]} follow the exact lattice chain",
        source=SOURCE,
        note=f"share of runs that left at learning rate {rate:g}; exactly {exact:.4f}",
    )


def figure(data, config: Piecewise):
    """Draws the loss, trajectories at the learning rates shown, and the share of runs that left by learning rate."""
    columns = len(config.shown)
    drawn, axes = plt.subplots(3, columns + 1, figsize=(3.4 * (columns + 1), 7.6), squeeze=False, layout="constrained")
    for row, (method, label) in enumerate(METHODS.items()):
        for axis, eta in zip(axes[row], config.shown, strict=False):
            curves = at(data.theta, eta, method)
            axis.plot(data.step, curves.isel(seed=slice(0, 10)).T, color=f"C{row}", lw=0.5, alpha=0.8)
            axis.axhline(1 / config.steepness, color="0.3", lw=0.8, ls=":")
            axis.axhline(-1, color="0.3", lw=0.8, ls="--")
            axis.set(xlabel="steps", ylabel="θ", ylim=(-1.6, 1.0), title=f"{label}\nη = {eta:g}, 10 runs")
            axis.title.set_fontsize(9)
    loss, right = axes[0, -1], axes[1, -1]
    theta = np.linspace(-1.5, 0.6, 400)
    first = np.where(theta <= 0, abs(theta + 1) - 1, config.epsilon * theta)
    second = np.where(theta <= 0, -config.epsilon * theta, abs(config.steepness * theta - 1) - 1)
    loss.plot(theta, config.share * first + (1 - config.share) * second, color="0.2", lw=1.4)
    loss.set(xlabel="θ", ylabel="loss V(θ)", title="loss")
    left = data.left_at <= config.num_steps
    total = left.sizes["seed"]
    for number, (method, label) in enumerate(METHODS.items()):
        counts = left.sel({"method": method}).sum("seed").values
        edges = np.array([stats.binomtest(int(c), total).proportion_ci(method="exact") for c in counts]).T
        share = counts / total
        style = {"fmt": "o", "ms": 3.5, "lw": 1, "capsize": 2, "color": f"C{number}"}
        right.errorbar(data.learning_rate, share, abs(edges - share), **style, label=label)
        exact = [exits(method, config, eta) for eta in data.learning_rate.values]
        right.plot(data.learning_rate, exact, color=f"C{number}", lw=0.9)
    right.set(
        xlabel="learning rate η",
        ylabel=f"left within {config.num_steps} steps (share)",
        title="dots: runs, lines: exact",
    )
    axes[2, -1].axis("off")
    axes[2, -1].legend(*right.get_legend_handles_labels(), loc="upper left", fontsize=8.5, title="bars: 95 % intervals")
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.suptitle(
        f"Paper 003, figures 1 and 5: {total} runs from θ = {config.first:g}; dotted: 1/K, dashed: -1", fontsize=11
    )
    return drawn
