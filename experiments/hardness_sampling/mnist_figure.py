"""Draws figure 1 of paper 004 for the MLP and the CNN, with panels that the paper does not have.

The added panels show accuracy at equal training loss, longer runs, and how far the stale histories are from the losses.
"""

import matplotlib.pyplot as plt
import numpy as np

from experiments.shared.figures import points
from experiments.shared.statistics import error_bars

__all__ = ["LABELS", "curve", "distances", "equal_loss", "errors", "figure", "long_runs"]

# Each method's label and line style.
LABELS = {
    "erm": ("ERM", {"color": "C0", "lw": 2.0}),
    "wr_0.1": ("β = 0.1", {"color": "#fdbe85"}),
    "wr_1": ("β = 1", {"color": "#fd8d3c"}),
    "wr_10": ("β = 10", {"color": "#d94701"}),
    "wr_100": ("β = 100", {"color": "#7f2704"}),
    "nr_10": ("β = 10, without replacement", {"color": "C2"}),
    "nr_100": ("β = 100, without replacement", {"color": "#00441b", "ls": "--"}),
    "is_10": ("β = 10, clipped importance weights", {"color": "C4"}),
    "chi2_10": ("χ², β = 10", {"color": "C6", "ls": "--"}),
}
# The methods of the paper, and those that are compared beyond it.
PAPER = ("erm", "wr_0.1", "wr_1", "wr_10", "wr_100")
OURS = ("erm", "wr_10", "nr_10", "nr_100", "is_10", "chi2_10")
# Each estimate's label and marker.
ESTIMATES = {
    "stale": ("weights 1", "o-"),
    "clipped": ("clipped weights", "s-"),
    "tree": ("exact weights", "^-"),
    "self_normalised": ("self-normalised weights", "D-"),
    "without_replacement": ("weights 1, without replacement", "v--"),
}


def figure(results):
    """Draws two rows of curves for each model and a row of panels on histories and longer runs.

    The first row of a model has the paper's methods, the second one the variants.
    """
    (first, mlp), (second, cnn), *longer = results.items()
    drawn, axes = plt.subplots(5, 4, figsize=(18, 19), layout="constrained")
    for row, name, data, methods in (
        (axes[0], first, mlp, PAPER),
        (axes[1], first, mlp, OURS),
        (axes[2], second, cnn, PAPER),
        (axes[3], second, cnn, OURS),
    ):
        what = "figure 1" if methods is PAPER else "variants"
        fourth = ("train_loss_std", "std of training losses (nats)")
        if methods is OURS:
            fourth = ("effective_sample_size", "effective sample size (share of n)")
        panels = [
            ("rare_accuracy", "test accuracy on class 3 (%)"),
            ("accuracy", "test accuracy, all classes (%)"),
            ("train_loss", "mean training loss (nats)"),
            fourth,
        ]
        for axis, (metric, label) in zip(row, panels, strict=True):
            scale = "linear" if metric.endswith("accuracy") else "log"
            axis.set_yscale(scale)
            for method in (m for m in methods if m in data.method):
                curve(axis, data[metric].sel({"method": method}), method)
            axis.set(xlabel="training steps", ylabel=label, title=f"{name}: {what}")
            if scale == "linear":
                axis.set_ylim(0 if metric == "rare_accuracy" else 60, 100)
    equal_loss(axes[4, 0], mlp, first)
    long_runs(axes[4, 1], longer)
    distances(axes[4, 2], mlp, first)
    errors(axes[4, 3], mlp, first)
    for axis in axes.flat:
        axis.grid(alpha=0.3, lw=0.5)
    for axis in axes[4]:
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    handles = [plt.Line2D([], [], **style, label=text) for text, style in LABELS.values()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=5)
    seeds = mlp.sizes["seed"]
    drawn.suptitle(
        "MNIST with 1 % of the 3s in training, paper 004 figure 1: ERM and hardness weighted sampling "
        f"(with replacement where not said)\nmeans over {seeds} paired seeds; bands: ±2 standard errors"
    )
    return drawn


def curve(axis, values, method, **style):
    """Draws the mean over seeds, with a band of two standard errors to each side."""
    mean, error = error_bars(values)
    style = {"lw": 1.3, **LABELS[method][1], **style}
    axis.plot(values.step, mean, **style)
    # On a logarithmic axis a band that reaches 0 could not be drawn.
    low = np.maximum(mean - error, 0.5 * mean if axis.get_yscale() == "log" else 0.0)
    axis.fill_between(values.step, low, mean + error, color=style["color"], alpha=0.2, lw=0)


def equal_loss(axis, data, name):
    """Draws the accuracy on class 3 against the training loss at the same step."""
    for method in ("erm", "wr_1", "wr_10", "nr_10"):
        x, y = (data[metric].sel({"method": method}).mean("seed") for metric in ("train_loss", "rare_accuracy"))
        text, style = LABELS[method]
        axis.plot(x, y, label=text, **{"lw": 1.3, **style})
    axis.set(xlabel="mean training loss (nats)", ylabel="test accuracy on class 3 (%)", xlim=(1.2, 0.0))
    axis.set_title(f"{name}: at equal training loss")


def long_runs(axis, runs):
    """Draws the accuracy on class 3 in the runs that go on longer."""
    for (name, data), ls in zip(runs, ("-", ":"), strict=False):
        for method in data.method.values:
            curve(axis, data["rare_accuracy"].sel({"method": method}), method, ls=ls)
            axis.lines[-1].set_label(f"{LABELS[method][0]}, {name}")
    axis.set(xlabel="training steps", ylabel="test accuracy on class 3 (%)", title="longer, and with longer steps")


def _points(axis, data, metric, methods, fmt, label, **style):
    """Draws means over checkpoints and seeds, with two standard errors to each side, against the methods' beta."""
    values = data.sel({"method": list(methods)})[metric].mean("checkpoint")
    betas = [float(method.partition("_")[2]) for method in methods]
    points(axis, betas, values, **{"fmt": fmt, "label": label, "ms": 5, **style})


def distances(axis, data, name):
    """Draws the total variation distance to the robust distribution of the fresh losses, against beta."""
    methods = ("wr_0.1", "wr_1", "wr_10", "wr_100")
    _points(axis, data, "tv_stale", methods, "o-", "weights 1")
    _points(axis, data, "tv_clipped", methods, "s-", "clipped weights")
    _points(axis, data, "tv_stale", ("nr_10", "nr_100"), "v--", "weights 1, trained without replacement")
    _points(axis, data, "tv_stale", ("is_10",), "o", "weights 1, trained with clipped weights", mfc="none")
    _points(axis, data, "tv_clipped", ("is_10",), "s", "clipped weights, trained with them", mfc="none")
    axis.set(xlabel="β (1 / nat)", ylabel="total variation distance", xscale="log", ylim=(0, 1.02))
    axis.set_title(f"{name}: stale history to softmax(βL)")


def errors(axis, data, name):
    """Draws the error of a batch's estimate of the robust mean loss, against beta."""
    for estimate, (label, fmt) in ESTIMATES.items():
        _points(axis, data.sel(estimate=estimate), "error", ("wr_0.1", "wr_1", "wr_10", "wr_100"), fmt, label)
    axis.set(xlabel="β (1 / nat)", ylabel="relative root mean square error", xscale="log", yscale="log")
    axis.set_title(f"{name}: a batch's estimate of E[L]")
