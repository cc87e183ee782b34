"""Judges the methods on real tables with group shifts against ERM, and draws their accuracies."""

import math
import re

import matplotlib.pyplot as plt

from experiments.shared.sentences import text
from experiments.shared.statistics import error_bars
from mixjax.runner.claims import paired, versus

__all__ = ["LONG", "METHODS", "SHORT", "claims", "figure", "first_point", "gain"]

SOURCE = "ours (paper 004, section 5, compares the two in words)"
METHODS = {
    "erm": "ERM",
    "kl": "KL DRO in the batch",
    "chi2": "χ² DRO in the batch",
    "cvar": "CVaR in the batch",
    "balanced": "ERM, equal group weights",
    "group_dro": "group DRO",
    "group_kl": "KL DRO over groups",
    "hardness": "hardness sampling",
    "hardness_wr": "hardness sampling, with replacement",
}
# Two runs on the same splits: one trained briefly, the other one until ERM is at its best.
SHORT, LONG = "Adult, 100 steps", "Adult"
# What a method may cost in average accuracy, in percentage points. It was fixed before the judging seeds were run.
PRICE = 1.0


def first_point(results):
    """Returns every run at the first point of its sweep, which is the point that is judged."""
    own = {"seed", "method", "group"}
    return {name: data.isel(dict.fromkeys(set(data.sizes) - own, 0), drop=True) for name, data in results.items()}


def of(dataset, metric: str, method: str):
    """Returns one metric of one method."""
    return dataset[metric].sel({"method": method})


def figure(results):
    """Draws the worst group's accuracy against the average accuracy, with a panel for each run."""
    results = first_point(results)
    columns = min(len(results), 2)
    rows = math.ceil(len(results) / columns)
    drawn, axes = plt.subplots(
        rows, columns, figsize=(4.8 * columns, 3.9 * rows + 1), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(results) :]:
        axis.remove()
    for axis, (name, dataset) in zip(axes.flat, results.items(), strict=False):
        # One panel names the methods, so that the figure's legend has each of them once.
        _panel(axis, name, dataset, labelled=axis is axes.flat[0])
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Group and centre shifts in tables, mean over {seeds} paired splits\n"
        "bars: ±2 standard errors of the difference from ERM; dotted: ERM",
        fontsize=11,
    )
    drawn.legend(loc="outside lower center", ncols=3)
    return drawn


def _panel(axis, name, dataset, labelled):
    """Draws one run: each method with bars of two standard errors of its difference from ERM."""
    for number, (method, label) in enumerate(METHODS.items()):
        average, worst = (of(dataset, metric, method) for metric in ("accuracy", "worst_accuracy"))
        style = {"color": f"C{number}", "marker": "os^vDPXdh"[number], "ms": 6, "capsize": 2, "lw": 1, "ls": "none"}
        axis.errorbar(
            average.mean(),
            worst.mean(),
            _error(dataset, "worst_accuracy", method),
            _error(dataset, "accuracy", method),
            label=label if labelled else None,
            **style,
        )
    axis.axvline(of(dataset, "accuracy", "erm").mean(), color="0.6", lw=0.8, ls=":", zorder=0)
    axis.axhline(of(dataset, "worst_accuracy", "erm").mean(), color="0.6", lw=0.8, ls=":", zorder=0)
    rows = dataset["test_rows"].isel(seed=0)
    axis.set(xlabel="average test accuracy (%)", ylabel="worst group's test accuracy (%)")
    axis.set_title(f"{name}: {rows.size} groups of {rows.min():.0f} to {rows.max():.0f} test rows", fontsize=10)
    axis.grid(alpha=0.3, lw=0.5)


def _error(dataset, metric, method):
    """Returns two standard errors of a method's difference from ERM on the same splits."""
    difference = of(dataset, metric, method) - of(dataset, metric, "erm")
    _, error = error_bars(difference)
    return error


def gain(dataset, method: str):
    """Returns by how much a method's worst-group test accuracy is above ERM's on the same split, ``[seed]``."""
    return of(dataset, "worst_accuracy", method) - of(dataset, "worst_accuracy", "erm")


def claims(results) -> list:
    """Judges each method against ERM, group DRO against hardness sampling, and a short run against a long one."""
    results = first_point(results)
    found = [claim for name, dataset in results.items() for claim in _claims_of(name, dataset)]
    if {SHORT, LONG} <= set(results):
        for method in ("group_dro", "cvar", "hardness"):
            found.append(
                paired(
                    f"{_slug(SHORT)}_{method}_gains_more",
                    gain(results[SHORT], method),
                    ">",
                    gain(results[LONG], method),
                    statement=f"ours: what {METHODS[method]} gains over ERM in the worst group's test accuracy is more "
                    f"in the short run ({SHORT}) than in the long one ({LONG})",
                    source=SOURCE,
                    note="percentage points",
                )
            )
    return found


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower())


def _claims_of(name, dataset) -> list:
    """Judges the methods of one run."""
    found = []
    for method in METHODS:
        if method != "erm":
            found += [_helps(name, dataset, method), _price(name, dataset, method)]
    found += [_worst_loss(name, dataset, method) for method in ("group_dro", "hardness")]
    found.append(
        paired(
            f"{_slug(name)}_group_labels_help",
            of(dataset, "worst_accuracy", "group_dro"),
            ">",
            of(dataset, "worst_accuracy", "hardness"),
            statement="ours: group DRO, which needs group labels, has a higher worst-group test accuracy than hardness "
            f"sampling, which does not ({name})",
            source=SOURCE,
            note=_note(dataset, "group_dro", "hardness"),
        )
    )
    return found


def _helps(name, dataset, method):
    """Judges whether a method raises the worst group's accuracy."""
    return paired(
        f"{_slug(name)}_{method}_helps",
        of(dataset, "worst_accuracy", method),
        ">",
        of(dataset, "worst_accuracy", "erm"),
        statement=f"ours: {METHODS[method]} raises the worst group's test accuracy above ERM's ({name})",
        source=SOURCE,
        note=_note(dataset, method, "erm"),
    )


def _price(name, dataset, method):
    """Judges whether a method costs little average accuracy."""
    return versus(
        f"{_slug(name)}_{method}_price",
        of(dataset, "accuracy", method) - of(dataset, "accuracy", "erm"),
        ">=",
        -PRICE,
        statement=f"ours: {METHODS[method]} costs at most {PRICE:g} point of average test accuracy ({name})",
        source=SOURCE,
        note="percentage points, groups weighted as in training",
    )


def _worst_loss(name, dataset, method):
    """Judges whether a method lowers the worst group's loss."""
    return paired(
        f"{_slug(name)}_{method}_worst_loss",
        of(dataset, "worst_loss", method),
        "<",
        of(dataset, "worst_loss", "erm"),
        statement=f"ours: {METHODS[method]} lowers the worst group's test loss below ERM's ({name})",
        source=SOURCE,
        note="nats",
    )


def _note(dataset, a, b) -> str:
    """Writes the unit, and the difference of two methods in the group that is worst for ERM on average.

    The worst group of each split is a noisy choice; this group is the same in all splits.
    """
    rows = dataset["test_rows"].isel(seed=0)
    worst = dataset["group_accuracy"].sel({"method": "erm"}).mean("seed").argmin("group").item()
    group = dataset["group"][worst].item()
    difference = (of(dataset, "group_accuracy", a) - of(dataset, "group_accuracy", b)).isel(group=worst)
    return (
        f"percentage points; the worst group of each split, smallest group {rows.min():.0f} test rows; "
        f"in ERM's worst group on average, {group} ({rows[worst]:.0f} test rows): {text(difference)}"
    )
