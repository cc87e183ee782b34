"""Draws figure 1 of paper 004 for WRN-16-1, and judges what one seed shows."""

import matplotlib.pyplot as plt

from experiments.hardness_sampling import curves
from mixjax.runner.claims import paired

__all__ = ["METHODS", "claims", "figure"]

SOURCE = "paper 004, section 4.1 and appendix 8.1"
METHODS = {"erm": "ERM", "wr": "DRO, β = 10, with replacement", "nr": "DRO, β = 10, without replacement"}


def figure(results):
    """Draws figure 1 for this model: test curves above and training curves below, as far as training has come."""
    data = next(iter(results.values())).isel(seed=0)
    panels = {
        "rare_accuracy": "test accuracy on class 3 (%)",
        "accuracy": "test accuracy, all classes (%)",
        "rare_accuracy_fresh_statistics": "test accuracy on class 3 (%)\nstatistics of uniform images",
        "train_loss": "mean training loss (nats)",
        "train_loss_std": "std of per-example training loss (nats)",
        "rare_share": "class 3's share of the draws",
    }
    drawn, axes = plt.subplots(2, 3, figsize=(13, 6.6), layout="constrained")
    for axis, (metric, label) in zip(axes.flat, panels.items(), strict=True):
        for number, (method, text) in enumerate(METHODS.items()):
            axis.plot(data.step, data[metric].sel({"method": method}), color=f"C{number}", lw=1.4, label=text)
        axis.set(xlabel="training steps", ylabel=label, yscale="log" if metric.startswith("train") else "linear")
        if "accuracy" in metric:
            axis.set_ylim(-1, 100)
        axis.grid(alpha=0.3, lw=0.5)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    drawn.suptitle(f"WRN-16-1 on MNIST with 1 % of the 3s, learning rate 0.01, batch 64: one seed ({int(data.seed)})")
    return drawn


def claims(results) -> list:
    """Judges what one seed shows. Its numbers have no standard error, so that every claim is undecided."""
    data = next(iter(results.values()))
    steps = f"on WRN-16-1 after {int(data.step[-1])} steps"

    def compare(name, method, values, statement, *, threshold=0.0, note=""):
        own, erm = values
        return paired(
            f"wrn_{name}_{method}",
            own,
            ">",
            erm,
            threshold=threshold,
            statement=f"ours: {METHODS[method]}, {statement}",
            source=SOURCE,
            note=note,
        )

    def last(metric, method):
        return [curves.last(data[metric], name) for name in (method, "erm")]

    def rough(metric, method):
        half = curves.second_half(data[metric])
        return [curves.roughness(half.sel({"method": name}, drop=True)) for name in (method, "erm")]

    found = []
    for method in ("nr", "wr"):
        *equal, level = curves.equal_loss(data, method, "erm")
        more, loss = "outperforms ERM by more than 15 points on class 3", f"a loss of {float(level.mean()):.3g} nats"
        fresh = "with batch statistics of uniformly drawn images"
        local = "points from one record to the next about a local line, second half of the run"
        found += [
            compare("rare_class", method, last("rare_accuracy", method), f"{more} {steps}", threshold=15.0),
            compare(
                "rare_class_fresh_statistics",
                method,
                last("rare_accuracy_fresh_statistics", method),
                f"{more} {steps}, {fresh}",
                threshold=15.0,
            ),
            compare("equal_loss", method, equal, "is ahead of ERM on class 3 at equal training loss", note=loss),
            compare("rougher", method, rough("accuracy", method), "has a rougher test curve than ERM", note=local),
        ]
    return found
