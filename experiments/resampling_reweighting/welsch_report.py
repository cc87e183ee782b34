"""Judges the experiment on robust statistics (paper 003, section 4.1), and draws figures 2 and 3.

The config that the functions take is a :class:`experiments.resampling_reweighting.welsch.Welsch`.
"""

import matplotlib.pyplot as plt

from experiments.resampling_reweighting.runs import at, by_rate, interval
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.figures import quantile_band
from experiments.shared.sentences import text
from experiments.shared.statistics import share_error_bars
from mixjax.runner.claims import Claim, paired, versus

__all__ = ["METHODS", "arrived", "claims", "figure"]

SOURCE = "paper 003, section 4.1"
METHODS = {"sgd": "SGD", "per_term": "RR, all norms (eq. 3.5)", "group": "RR, one element a group"}
COLORS = {"sgd": "C0", "per_term": "C1", "group": "C2"}
# A loss is better than SGD's if it is lower by this share of the way from 1 to the best loss.
GAIN = 0.1


def arrived(data, config):
    """Returns 1 for each run whose last loss is near the best one, and 0 for the others.

    Returns:
        An array ``[learning_rate, seed, method]``.
    """
    return (data.loss.isel(step=-1) <= data.best_loss + config.margin * (1 - data.best_loss)).astype(float)


def claims(data, config) -> list:
    """Judges which methods end in the global basin, and whose loss is lower."""
    return {"classification": _of_classification, "regression": _of_regression}[config.problem](data, config)


def _of_classification(data, config) -> list:
    """Judges figure 2, at the config's own learning rate."""
    rate, near, last = config.learning_rate, arrived(data, config), data.loss.isel(step=-1)
    where = (
        f"share of runs whose loss is within {config.margin:g} of the way from the least loss to 1, after "
        f"{config.num_steps} steps at learning rate {rate:g}"
    )
    stayed = {method: at(near, rate, method) for method in METHODS}
    return [
        versus(
            "classification_sgd_escapes",
            1 - stayed["sgd"],
            ">=",
            0.95,
            **quote("classification_sgd_escapes"),
            note=f"1 - {where}; in the global basin {interval(stayed['sgd'])}",
        ),
        versus(
            "classification_rr_stays",
            stayed["group"],
            ">=",
            0.95,
            **quote("classification_rr_stays"),
            note=f"{where}, one element a group; {interval(stayed['group'])}; shares, {_table(near, 3)}",
        ),
        versus(
            "classification_rr_stays_per_term",
            stayed["per_term"],
            ">=",
            0.95,
            statement="ours: so does RR by all gradient norms",
            source=SOURCE,
            note=interval(stayed["per_term"]),
        ),
        paired(
            "classification_lower_loss",
            at(last, rate, "group"),
            "<",
            at(last, rate, "sgd"),
            statement="ours: RR ends at a lower loss than SGD",
            source=SOURCE,
            note=f"mean last losses, {_table(last, 4)}",
        ),
    ]


def _of_regression(data, config) -> list:
    """Judges figure 3, or a variant of it in which only some of the targets are corrupted."""
    near, rate = arrived(data, config), config.learning_rate
    if config.corrupted == 1.0:
        suffix, in_variant, sentence = "", "", quote("regression_better")
    else:
        suffix, in_variant = "_variant", ", in the variant"
        what = f"with {config.corrupted:.0%} of the targets corrupted and a start near the truth"
        sentence = {"statement": f"ours, a variant: {what}, RR ends lower", "source": SOURCE}
    return [
        _lower(f"regression_better{suffix}", "per_term", data, config, **sentence),
        _lower(
            f"regression_better_group{suffix}",
            "group",
            data,
            config,
            statement=f"ours: so does RR by one element a group{in_variant}",
            source=SOURCE,
        ),
        versus(
            f"regression_arrives{suffix}",
            at(near, rate, "per_term"),
            ">=",
            0.85,
            statement="ours: RR ends near the loss of the true coefficients",
            source=SOURCE,
            note=f"share of runs after {config.num_steps} steps at learning rate {rate:g}",
        ),
    ]


def _lower(name, method, data, config, **sentence) -> Claim:
    """Judges a method's last loss against SGD's, at the learning rate of the grid where the method gains least."""
    last = data.loss.isel(step=-1)
    gaps = last.sel({"method": method}) - last.sel({"method": "sgd"})
    weakest = gaps.isel(learning_rate=int(gaps.mean("seed").argmax("learning_rate")))
    wanted = -GAIN * float((1 - data.best_loss).mean())
    truth = text(data.best_loss.isel(learning_rate=0))
    note = (
        f"last loss less SGD's after {config.num_steps} steps, at the grid's learning rate where RR gains least, "
        f"{weakest.learning_rate.item():g}; asked for: {GAIN:g} of the way from 1 to the loss of the true "
        f"coefficients ({truth}); mean last losses, {_table(last, 4)}; in the global basin, "
        f"{_table(arrived(data, config), 3)}"
    )
    return paired(name, weakest, "<", 0.0 * weakest, threshold=wanted, **sentence, note=note)


def _table(values, digits) -> str:
    """Writes every method's mean at each learning rate."""
    return f"{' / '.join(METHODS)} by learning rate: {by_rate(values, digits)}"


def figure(data, config):
    """Draws trajectories of ten runs, losses, and the share of runs in the global basin by learning rate."""
    drawn, axes = plt.subplots(1, 3, figsize=(14, 4.8), layout="constrained")
    shown = data.sel(learning_rate=config.learning_rate, method="nearest")
    near, seeds = arrived(data, config), data.sizes["seed"]
    for method, label in METHODS.items():
        color = COLORS[method]
        paths = shown.theta.sel({"method": method}).isel(seed=slice(0, 10))
        axes[0].plot(shown.step, paths.T, color=color, lw=0.6, alpha=0.7)
        values = shown.loss.sel({"method": method})
        axes[1].plot(shown.step, values.quantile(0.5, "seed"), color=color, lw=1.4, label=label)
        quantile_band(axes[1], shown.step, values, color=color)
        share, error = share_error_bars(near.sel({"method": method}))
        style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": color, "label": label}
        axes[2].errorbar(data.learning_rate, share, error, **style)
    axes[1].axhline(float(shown.best_loss.mean()), color="0.4", lw=1, ls=":", label="best parameters")
    name = "θ" if config.problem == "classification" else "first coefficient"
    axes[0].set(xlabel="steps", ylabel=name, title=f"10 runs, η = {config.learning_rate:g}")
    axes[1].set(xlabel="steps", ylabel="loss (eq. 4.1)", title="median, 10 to 90 % of the runs")
    axes[2].set(xlabel="learning rate η", ylabel="in the global basin at the end (share)", ylim=(-0.03, 1.03))
    axes[2].set(title=f"{seeds} runs, a data set each, ±2 errors", xscale="log")
    axes[2].set_xticks(data.learning_rate.values, [f"{rate:g}" for rate in data.learning_rate.values])
    axes[2].minorticks_off()
    for axis in axes:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS) + 1)
    title = "Paper 003, figure 2: Welsch classification"
    if config.problem == "regression":
        title = f"Paper 003, figure 3: Welsch regression, {config.corrupted:.0%} of the targets corrupted"
    drawn.suptitle(title, fontsize=11)
    return drawn
