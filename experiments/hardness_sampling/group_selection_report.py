"""Chooses each method's trial by three rules, compares the methods under each, and draws what the rules choose."""

import re

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.hardness_sampling.group_shift_report import METHODS
from experiments.shared.statistics import error_bars
from mixjax.runner.claims import Claim, paired
from mixjax.runner.comparison import paired_table
from mixjax.runner.texts import markdown_table, mean_text

__all__ = ["MARGIN", "RULES", "SIGNIFICANT", "chosen", "claims", "figure", "summary", "verdicts"]

SOURCE = "Yang et al., Change is Hard, 2023 (SubpopBench)"
# Rule -> the metric whose largest value chooses a trial.
RULES = {
    "worst group": "validation_worst_accuracy",
    "average": "validation_accuracy",
    "oracle": "worst_accuracy",
}
SIGNIFICANT = 0.05
# The gain over ERM, in percentage points, below which a method is no better. It was fixed before the splits were run.
MARGIN = 1.0


def chosen(dataset: xarray.Dataset, rule: str, metric: str = "worst_accuracy") -> xarray.DataArray:
    """Returns a metric of each method at the trial that a rule chooses, ``[seed, method]``.

    Args:
        dataset: metrics ``[seed, point, method]``.
        rule: a key of :data:`RULES`. The first of several equally good trials is taken.
        metric: what is returned.
    """
    return dataset[metric].isel(point=dataset[RULES[rule]].argmax("point"), drop=True)


def verdicts(dataset: xarray.Dataset, rule: str):
    """Compares every method with ERM in the worst group's test accuracy, both at the trials that a rule chooses.

    Returns:
        A data frame of :func:`mixjax.runner.comparison.paired_table`, one row a method, with a column ``verdict``:
        "better", "worse" or "no difference seen", by Holm's correction over the methods.
    """
    values = chosen(dataset, rule)
    frame = values.drop_vars([name for name in values.coords if name not in values.dims])
    frame = frame.to_series().rename("worst_accuracy").reset_index()
    table = paired_table(frame, "worst_accuracy", "method", baseline="erm", better="higher")
    sure = (table["p_holm"] < SIGNIFICANT).to_numpy()
    direction = np.where(table["difference"] > 0, "better", "worse")
    return table.assign(verdict=np.where(sure, direction, "no difference seen"))


def summary(results) -> str:
    """Writes a table for each run: the worst group's test accuracy of each method under each rule, with a verdict."""
    first = next(iter(results.values()))
    lines = [
        f"Accuracy of the worst group on test rows, %, mean over {first.sizes['seed']} splits. Each method has "
        f"{first.sizes['point']} trials; a rule chooses one in each split. In brackets: the difference from ERM under "
        "the same rule ± standard error, and **better** or **worse** where a paired t-test says so at 5 %, with Holm's "
        "correction for eight methods.",
    ]
    for name, dataset in results.items():
        tables = {rule: verdicts(dataset, rule).set_index("method") for rule in RULES}
        rows = []
        for method, label in METHODS.items():
            cells = []
            for rule, table in tables.items():
                mean = f"{chosen(dataset, rule).sel({'method': method}).mean().item():.1f}"
                if method != "erm":
                    row = table.loc[method]
                    word = f", **{row['verdict']}**" if row["verdict"] in ("better", "worse") else ""
                    mean += f" ({mean_text(row['difference'], row['stderr'])}{word})"
                cells.append(mean)
            rows.append([label, *cells])
        lines += ["", f"### {name}", "", *markdown_table(["method", *(f"chosen by {rule}" for rule in RULES)], rows)]
    return "\n".join(lines)


def claims(results) -> list[Claim]:
    """Judges SubpopBench's statement on ERM for each rule, and what a rule is worth to ERM."""
    found = []
    for name, dataset in results.items():
        slug = re.sub(r"\W+", "_", name.lower())
        found += [_hard_to_beat(dataset, rule, name, slug) for rule in RULES]
        found.append(
            paired(
                f"{slug}_groups_to_choose",
                of_method(dataset, "worst group", "erm"),
                ">",
                of_method(dataset, "average", "erm"),
                statement="ours: choosing by the worst group's validation accuracy raises ERM's worst-group test "
                f"accuracy above that of choosing by the average ({name})",
                source="ours",
                note="percentage points",
            )
        )
    return found


def of_method(dataset, rule, method):
    """Returns the worst group's test accuracy of one method under one rule, ``[seed]``."""
    return chosen(dataset, rule).sel({"method": method})


def _hard_to_beat(dataset, rule, name, slug) -> Claim:
    """Judges whether a method is above ERM where both have the same trials and the same rule.

    The number is that of the method with the largest gain. The statement is false where a method is better after Holm's
    correction, true where the 95 % interval of every method's gain ends below :data:`MARGIN`, and undecided otherwise:
    splits too few to see a difference are no evidence that there is none.
    """
    table = verdicts(dataset, rule)
    best = table.loc[table["difference"].idxmax()]
    better, worse = (int((table["verdict"] == word).sum()) for word in ("better", "worse"))
    holds = True if (table["high"] < MARGIN).all() else None
    if better:
        holds = False
    note = (
        f"percentage points, {METHODS[best['method']]}, which gains most ({best['low']:+.2f} to {best['high']:+.2f}, "
        f"p = {best['p_holm']:.2g} after Holm); {better} methods better, {worse} worse; yes needs every interval "
        f"to end below {MARGIN:g}"
    )
    return Claim(
        name=f"{slug}_erm_hard_to_beat_{rule.replace(' ', '_')}",
        statement="plain ERM with good selection is hard to beat: with as many trials, no other method has a higher "
        f"worst-group test accuracy, where {rule} chooses ({name})",
        source=SOURCE,
        value=float(best["difference"]),
        stderr=float(best["stderr"]),
        threshold=MARGIN,
        num_seeds=int(best["num_seeds"]),
        holds=holds,
        note=note,
    )


def figure(results):
    """Draws each method's gain over ERM in the worst group, with a column for each run and a colour for each rule."""
    drawn, axes = plt.subplots(
        1, len(results), figsize=(2.6 + 3.4 * len(results), 4.4), sharey=True, layout="constrained", squeeze=False
    )
    methods = [method for method in METHODS if method != "erm"]
    for axis, (name, dataset) in zip(axes[0], results.items(), strict=True):
        axis.axvline(0.0, color="0.5", lw=0.8)
        for number, rule in enumerate(RULES):
            values = chosen(dataset, rule)
            gains = [values.sel({"method": method}) - values.sel({"method": "erm"}) for method in methods]
            means, errors = zip(*(error_bars(gain) for gain in gains), strict=True)
            places = -np.arange(len(methods)) + 0.22 * (1 - number)
            axis.errorbar(means, places, xerr=errors, fmt="os^"[number], ms=5, capsize=2, ls="none", label=rule)
        axis.set(title=name, xlabel="worst group's test accuracy minus ERM's, %")
        axis.set_yticks(-np.arange(len(methods)), [METHODS[method] for method in methods])
        axis.grid(axis="x", alpha=0.3, lw=0.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, title="trial chosen by", loc="outside lower center", ncols=3)
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(f"The same trials for all methods; mean ± 2 standard errors over {seeds} paired splits", fontsize=11)
    return drawn
