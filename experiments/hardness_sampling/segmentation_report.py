"""Claims and figure of the segmentation of brain tumours: paper 004, tables 1 and 2, figures 2 and 3."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from experiments.hardness_sampling.sentences import quote
from experiments.shared.sentences import text
from mixjax.data.segmentation import REGIONS
from mixjax.runner.claims import Claim, paired

SGD, NESTEROV = "plain SGD", "Nesterov"  # the runs of the config
SMALL, MAIN, LARGE = 10.0, 100.0, 1000.0  # the paper's beta; table 1 is at the middle one, with importance sampling
POOR = 25.0  # % of Dice below which a segmentation is poor: set before judging; the paper names no number
LABELS = {"background": "black", "whole alone": "tab:green", "core alone": "gold", "enhancing": "tab:red"}
CONTRADICTED = {  # the paper's own table 2 against its sentences
    "beta_10_iqr": "the paper's table 2 has core 14.3 (ERM) and 14.5",
    "beta_10_is_iqr": "the paper's table 2 has core 14.3 (ERM) and 14.3",
    "beta_1000_lowers_mean": "the paper's table 2 has enhancing 73.0 (ERM) and, without importance sampling, 74.5",
    "importance_sampling_iqr_beta_10": "the paper's table 2 has whole 5.9 without and 7.0 with it",
    "importance_sampling_iqr_beta_1000": "the paper's table 2 has whole 5.9 without and 6.3 with it",
}


def name(beta: float, importance: bool = False) -> str:
    """The label of a method."""
    return "ERM" if beta == 0 else f"DRO β = {beta:g}" + (" IS" if importance else "")


def iqr(scores: xarray.DataArray) -> xarray.DataArray:
    """The interquartile range over test cases."""
    low, high = (scores.quantile(q, "case").drop_vars("quantile") for q in (0.25, 0.75))
    return high - low


def mean(scores: xarray.DataArray) -> xarray.DataArray:
    """The mean over test cases."""
    return scores.mean("case")


def median(scores: xarray.DataArray) -> xarray.DataArray:
    """The median over test cases."""
    return scores.median("case")


def lowest_tenth(scores: xarray.DataArray) -> xarray.DataArray:
    """The 10th percentile over test cases."""
    return scores.quantile(0.1, "case").drop_vars("quantile")


def poor(scores: xarray.DataArray) -> xarray.DataArray:
    """The share of poor segmentations among test cases, in %."""
    return 100 * (scores < POOR).mean("case")


def fall(scores: xarray.DataArray, statistic: Callable, method: str, other: str = "ERM") -> np.ndarray:
    """By how much a method's statistic is below the other one's, for each seed."""
    a, b = (statistic(scores.sel({"method": label})) for label in (other, method))
    return (a - b).values


def judge(key: str, parts: Mapping[str, np.ndarray], note: str, **words: str) -> Claim:
    """Claims that every part's mean over seeds is above 0.

    It holds if all parts do, fails if one fails, and is undecided otherwise; the number is that of the part with the
    least mean in its own standard deviations, and the note tells them all.

    Args:
        key: of the sentence.
        parts: what -> one value a seed, positive where the sentence is right.
        note: what the numbers are.
        words: statement and source, where the sentence is not the paper's.
    """
    words = words or quote(key)
    judged = {what: paired(key, values, ">", np.zeros(len(values)), **words) for what, values in parts.items()}
    verdicts = [claim.holds for claim in judged.values()]
    weakest = min(parts, key=lambda what: np.mean(parts[what]) / (np.std(parts[what]) + 1e-9))
    told = "; ".join(f"{what} {text(values)}" for what, values in parts.items()) if len(parts) > 1 else ""
    return dataclasses.replace(
        judged[weakest],
        holds=False if False in verdicts else None if None in verdicts else True,
        note="; ".join(filter(None, [note, told, CONTRADICTED.get(key)])),
    )


def claims(results, centre: str) -> list[Claim]:
    """The sentences of section 4.2, for those runs and methods that are there.

    Every number is a statistic over the test cases of one seed, compared between methods on the same seed.

    Args:
        results: run name to data set; the runs are ``SGD`` and ``NESTEROV``.
        centre: the one that figure 3 tells apart.

    Returns:
        One claim a sentence.
    """
    rows, table_1, method = [], {}, name(MAIN, True)
    for run, short in ((SGD, "sgd"), (NESTEROV, "nesterov")):
        if _has(results, run, "ERM", method):
            dice = results[run]["dice"]
            for region in ("enhancing", "core"):
                table_1[f"iqr_{region}_{short}"] = fall(dice.sel(region=region), iqr, method)
                rows.append(_iqr_row(f"iqr_{region}_{short}", dice, [region], method))
            key = f"mean_enhancing_{short}"
            table_1[key] = -fall(dice.sel(region="enhancing"), mean, method)
            rows.append(judge(key, {"": table_1[key]}, "points of Dice, DRO - ERM"))
    if len(table_1) == 6:
        rows.append(judge("same_under_either_update", table_1, "points of Dice by which DRO is better"))
    if _has(results, NESTEROV, "ERM", method):
        rows += _centres(results[NESTEROV], centre)
    if _has(results, NESTEROV, "ERM", name(SMALL, True)):
        rows += _small_beta(results[NESTEROV], centre)
    return rows + (_table_2(results[NESTEROV]["dice"]) if NESTEROV in results else [])


def _has(results, run: str, *methods: str) -> bool:
    return run in results and set(methods) <= set(results[run]["method"].values)


def _iqr_row(key: str, dice: xarray.DataArray, regions: Sequence[str], method: str) -> Claim:
    """Claims that the IQR of regions falls; the note tells of their means, since 0 everywhere is narrow."""
    scores = {region: dice.sel(region=region) for region in regions}
    means = ", ".join(f"{region} {text(-fall(values, mean, method))}" for region, values in scores.items())
    note = f"points of Dice, IQR of ERM - IQR of DRO; change of the mean from ERM to DRO: {means}"
    return judge(key, {region: fall(values, iqr, method) for region, values in scores.items()}, note)


def _centres(data: xarray.Dataset, centre: str) -> list[Claim]:
    """Figure 3, and what it presumes."""
    enhancing, method = data["dice"].sel(region="enhancing"), name(MAIN, True)
    there = (data["case"] == centre).values
    here, elsewhere = (fall(enhancing.isel(case=cases), poor, method) for cases in (there, ~there))
    level = enhancing.sel({"method": "ERM"})
    drawn = data["centre_share"].mean("epoch")
    ours = {"source": "paper 004, section 4.2"}
    return [
        judge(
            "fewer_poor_cases_in_one_centre",
            {f"fewer at {centre!r}": here, "fewer there than elsewhere": here - elsewhere},
            f"% of cases with Dice below {POOR:g} %, ERM - DRO",
        ),
        judge(
            "segmentation_one_centre_is_hard",
            {"": (mean(level.isel(case=~there)) - mean(level.isel(case=there))).values},
            "points of mean Dice, enhancing, ERM: other centres - this one",
            statement=f"ours: ERM segments the cases of {centre!r} worse than the others",
            **ours,
        ),
        judge(
            "segmentation_draws_the_hard_centre",
            {"": (drawn.sel({"method": method}) - drawn.sel({"method": "ERM"})).values},
            "share of draws, DRO - ERM",
            statement=f"ours: DRO draws the cases of {centre!r} more often than ERM does",
            **ours,
        ),
        judge(
            "segmentation_mean_in_one_centre",
            {"": -fall(enhancing.isel(case=there), mean, method)},
            "points of mean Dice, enhancing, DRO - ERM",
            statement=f"ours: DRO raises the mean Dice of the cases of {centre!r}",
            **ours,
        ),
    ]


def _small_beta(data: xarray.Dataset, centre: str) -> list[Claim]:
    """Our rows, found on other seeds: what DRO does where its effective sample size stays large."""
    whole, method = data["dice"].sel(region="whole"), name(SMALL, True)
    there = whole.isel(case=(data["case"] == centre).values)
    return [
        judge(
            "segmentation_whole_iqr",
            {"": fall(whole, iqr, method)},
            "points of Dice, IQR of ERM - IQR of DRO",
            statement="ours: DRO at beta = 10 with importance sampling narrows the Dice scores of the whole tumour",
            source="paper 004, section 4.2",
        ),
        judge(
            "segmentation_lowest_tenth",
            {"": -fall(there, lowest_tenth, method)},
            "points of Dice, 10th percentile, DRO - ERM",
            statement=f"ours: so it raises the lowest tenth of the whole tumour's Dice scores at {centre!r}",
            source="paper 004, section 4.2",
        ),
    ]


def _table_2(dice: xarray.DataArray) -> list[Claim]:
    """Table 2's sentences."""
    rows, methods = [], set(dice["method"].values)
    for key, method in (
        ("beta_10_iqr", name(SMALL)),
        ("beta_10_is_iqr", name(SMALL, True)),
        ("beta_100_iqr", name(MAIN)),
    ):
        if {"ERM", method} <= methods:
            rows.append(_iqr_row(key, dice, ["enhancing", "core"], method))
    large = [name(LARGE), name(LARGE, True)]
    if {"ERM", *large} <= methods:
        for key, statistic in (("beta_1000_lowers_mean", mean), ("beta_1000_lowers_median", median)):
            parts = {
                f"{region}, {method}": fall(dice.sel(region=region), statistic, method)
                for method in large
                for region in REGIONS
            }
            rows.append(judge(key, parts, "points of Dice by which it falls"))
    for beta in (SMALL, MAIN, LARGE):
        if {name(beta), name(beta, True)} <= methods:
            parts = {region: fall(dice.sel(region=region), iqr, name(beta, True), name(beta)) for region in REGIONS}
            key = f"importance_sampling_iqr_beta_{beta:g}"
            told = "; ".join(f"{region} {text(values)}" for region, values in parts.items())
            average = np.mean(list(parts.values()), axis=0)
            note = f"points of Dice by which the IQR falls with it, mean of the regions; {told}"
            rows.append(judge(key, {"": average}, note))
    return rows


def figure(results, centre: str, simulated: bool):
    """Figures 2 and 3: one test case with its contrasts, truth and predictions; Dice by method; Dice by centre."""
    bars, by_centre = {}, {}
    for run, data in results.items():
        there = (data["case"] == centre).values
        for method in data["method"].values:
            scores = data["dice"].sel({"method": method})
            bars[f"{run}, {method}"] = scores
            if method in ("ERM", name(MAIN, True)):
                by_centre[f"{centre}: {run}, {method}"] = scores.isel(case=there)
                by_centre[f"others: {run}, {method}"] = scores.isel(case=~there)
    by_centre = dict(sorted(by_centre.items(), key=lambda item: item[0].startswith("others")))
    heights = [3.2, 1.3 + 0.24 * len(bars), 1.3 + 0.24 * len(by_centre)]
    fig = plt.figure(figsize=(14, sum(heights) + 0.8), layout="constrained")
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=heights)
    run = NESTEROV if NESTEROV in results else next(iter(results))
    _example(top, results[run].isel(seed=0), f"a test case of {centre!r} in its plane of most enhancing tumour; {run}")
    _distributions(middle, bars, "all test cases")
    _distributions(bottom, by_centre, f"test cases of {centre!r} and of the other centres")
    seeds = next(iter(results.values())).sizes["seed"]
    what = "SIMULATED tumours and scanners on real anatomies" if simulated else "BraTS"
    fig.suptitle(f"{what}: paper 004, tables 1 and 2, figures 2 and 3 ({seeds} seeds)", fontsize=12)
    return fig


def _example(figure, data: xarray.Dataset, title: str) -> None:
    """Contrasts, truth and predicted labels of one plane of one case."""
    images = {str(contrast): data["shown_image"].sel(contrast=contrast) for contrast in data["contrast"].values}
    labels = {"truth": data["shown_truth"]}
    for method in ("ERM", name(MAIN, True)):
        if method in data["method"].values:
            labels[method] = data["shown"].sel({"method": method})
    axes = figure.subplots(1, len(images) + len(labels))
    colours = ListedColormap(list(LABELS.values()))
    for axis, (label, plane) in zip(axes, (images | labels).items(), strict=True):
        style = {"cmap": colours, "vmin": -0.5, "vmax": 3.5} if label in labels else {"cmap": "gray"}
        axis.imshow(plane.values.T, origin="lower", interpolation="nearest", **style)
        axis.set(title=label, xticks=[], yticks=[])
    handles = [Line2D([], [], marker="s", ls="", color=colour, label=label) for label, colour in LABELS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LABELS), fontsize=9)
    figure.suptitle(title, fontsize=10)


def _distributions(figure, bars: Mapping[str, xarray.DataArray], title: str) -> None:
    """One line a method: 5th to 95th percentile, interquartile range, median and mean, over cases and seeds."""
    axes = figure.subplots(1, len(REGIONS), sharey=True)
    places = np.arange(len(bars))[::-1]
    for axis, region in zip(axes, REGIONS, strict=True):
        for place, (label, dice) in zip(places, bars.items(), strict=True):
            values = dice.sel(region=region).values
            low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
            colour = "0.4" if label.endswith("ERM") else "C0" if label.endswith("IS") else "C1"
            axis.plot([low, high], [place, place], color=colour, lw=1)
            axis.plot([first, third], [place, place], color=colour, lw=6, solid_capstyle="butt", alpha=0.6)
            axis.plot(middle, place, "|", color="black", ms=9, mew=1.5)
            axis.plot(values.mean(), place, ".", color="black")
        axis.set(xlabel="Dice (%)", title=region, ylim=(-0.7, len(bars) - 0.3), yticks=places, yticklabels=list(bars))
        axis.grid(alpha=0.3, lw=0.5, axis="x")
    handles = [
        Line2D([], [], color="0.4", lw=1, label="5th to 95th percentile"),
        Line2D([], [], color="0.4", lw=6, alpha=0.6, label="interquartile range"),
        Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.5, label="median"),
        Line2D([], [], color="black", marker=".", ls="", label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    figure.suptitle(title, fontsize=10)
