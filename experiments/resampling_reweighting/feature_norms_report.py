"""Judges the experiment on features of norm 1 and ``K`` (paper 003, remark 2.2), and draws its figure.

The config that the functions take is a :class:`experiments.resampling_reweighting.feature_norms.FeatureNorms`.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.resampling_reweighting.runs import at, bounds, by_rate, interval
from experiments.resampling_reweighting.sentences import quote
from experiments.shared.sentences import text
from mixjax.runner.claims import paired, versus

__all__ = ["METHODS", "claims", "figure"]

SOURCE = "paper 003, section 2.1, remark 2.2"
METHODS = {
    "sgd": "SGD",
    "static": "RR by ‖x‖ (section 2)",
    "per_term": "RR, all norms (eq. 3.5)",
    "group": "RR, one element a group",
}
COLORS = {"sgd": "C0", "static": "C3", "per_term": "C1", "group": "C2"}


def claims(data, config) -> list:
    """Judges whether RR stays where SGD leaves, as in section 2's example, for every share of large features."""
    rows = []
    for share in data.share.values:
        rows += _claims_at_share(data, share, config)
    return [*rows, *_claims_at_smallest_share(data, config)]


def _claims_at_share(data, share, config) -> list:
    """Judges at how many learning rates of the grid RR stays, with one share of large features."""
    name = f"feature_norms_{share:g}".replace(".", "_")
    stayed = data.stayed.sel(share=share).transpose("learning_rate", "seed", "method")
    counts = {method: stayed.sel({"method": method}).sum("learning_rate") for method in METHODS}

    def intervals(method):
        return f"{method} by learning rate: {', '.join(map(interval, stayed.sel({'method': method})))}"

    def ours(method):
        return paired(
            f"{name}_{method}",
            counts[method],
            ">",
            counts["sgd"],
            statement=f"ours: with large features in {share:.0%} of the examples {METHODS[method]} stays at more "
            "learning rates than SGD",
            source=SOURCE,
            note=f"{text(counts[method])} against {text(counts['sgd'])} of {stayed.sizes['learning_rate']}",
        )

    note = (
        f"number of the grid's learning rates at which a run of {config.num_steps} steps ends in the sharp "
        f"minimum's basin, RR less SGD; shares of runs that do, {' / '.join(METHODS)}, by learning rate: "
        f"{by_rate(stayed)}; {intervals('sgd')}; {intervals('per_term')}"
    )
    return [
        paired(name, counts["per_term"], ">", counts["sgd"], **quote(name), note=note),
        ours("static"),
        ours("group"),
    ]


def _claims_at_smallest_share(data, config) -> list:
    """Judges who stays with the smallest share of large features, and which minimum is the lower one."""
    least = data.share.values.min()
    stayed = data.stayed.sel(share=least)
    sgd, rr = (at(stayed, config.learning_rate, method) for method in ("sgd", "per_term"))
    where = f"large features in {least:.0%} of the examples, {config.num_steps} steps at {config.learning_rate:g}"
    sharper = data.line.isel(place=0, learning_rate=0) < data.line.isel(place=-1, learning_rate=0)
    return [
        versus(
            "feature_norms_sgd_leaves",
            1 - sgd,
            ">=",
            0.5,
            statement="ours: as in figure 1, there is a learning rate at which SGD leaves the sharp minimum ...",
            source=SOURCE,
            note=f"share of runs that end elsewhere, {where}: {interval(1 - sgd)}",
        ),
        versus(
            "feature_norms_rr_stays",
            rr,
            ">=",
            0.95,
            statement="ours: ... and RR by all norms stays",
            source=SOURCE,
            note=f"share of runs that end there, {where}: {interval(rr)}",
        ),
        versus(
            "feature_norms_sharp_is_global",
            sharper.astype(float).mean("share"),
            ">=",
            0.95,
            statement="ours: the loss is lower at the sharp end of the axis, in nearly all data sets",
            source=SOURCE,
        ),
    ]


def figure(data, config):
    """Draws the loss between the minima, ten runs, and the share of runs in the sharp minimum's basin."""
    shares, least = data.share.values, data.share.values.min()
    drawn, axes = plt.subplots(2, max(3, len(shares)), figsize=(14, 8.0), layout="constrained", squeeze=False)
    own = data.sel(share=least).sel(learning_rate=config.learning_rate, method="nearest")
    for number, share in enumerate(shares):
        line = data.line.sel(share=share).isel(learning_rate=0).mean("seed")
        axes[0, 0].plot(data.place, line, color=f"C{4 + number}", label=f"{share:.0%} large features")
    axes[0, 0].set(xlabel="coordinate along the axis", ylabel="loss (eq. 2.3)")
    axes[0, 0].set(title="along the axis, mean of the data sets")
    axes[0, 0].legend(fontsize=8.5)
    for axis, method in zip(axes[0, 1:], ("sgd", "per_term"), strict=False):
        paths = own.theta.sel({"method": method}).isel(seed=slice(0, 10))
        axis.plot(data.step, paths.T, color=COLORS[method], lw=0.7, alpha=0.8)
        axis.axhline(1 / config.large, color="0.3", lw=0.9, ls=":", label="1/K")
        axis.axhline(-config.flat, color="0.3", lw=0.9, ls="--", label="-b")
        axis.set(xlabel="steps", ylabel="coordinate along the axis", ylim=(-0.75, 0.5))
        axis.set(title=f"{METHODS[method]}: 10 runs,\nη = {config.learning_rate:g}, {least:.0%} large features")
        axis.legend(fontsize=8.5, loc="lower left")
    for axis, share in zip(axes[1], shares, strict=False):
        stayed = data.stayed.sel(share=share)
        total = stayed.sizes["seed"]
        for method, label in METHODS.items():
            counts = stayed.sel({"method": method}).sum("seed").values
            edges = np.array([bounds(int(count), total) for count in counts]).T
            style = {"fmt": "o-", "ms": 4, "lw": 1.2, "capsize": 2, "color": COLORS[method], "label": label}
            axis.errorbar(data.learning_rate, counts / total, abs(edges - counts / total), **style)
        axis.set(xscale="log", xlabel="learning rate η", ylim=(-0.03, 1.03), title=f"{share:.0%} large features")
        axis.set(ylabel=f"in the sharp basin after {config.num_steps} steps (share)")
        axis.set_xticks(data.learning_rate.values, [f"{rate:g}" for rate in data.learning_rate.values])
        axis.minorticks_off()
    for axis in axes[0, 3:]:
        axis.axis("off")
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    drawn.suptitle(
        f"Paper 003, remark 2.2: features of norm 1 and {config.large:g}, f = tanh; "
        f"{data.sizes['seed']} runs, a data set each, bars: 95 % intervals",
        fontsize=11,
    )
    return drawn
