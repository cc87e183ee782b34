"""The table's claims and figure: every pair against no weighting, on the seeds that chose nothing."""

import re

import matplotlib.pyplot as plt
import numpy as np
import xarray

from experiments.sentences import SENTENCES, quote
from experiments.table.pairs import reason
from mixjax.claims import Claim, paired

BASELINE = "no weighting"
SOURCE = "ours, problems of paper 000 and Adult's groups"
Z = 3.0
"""Standard errors that a verdict takes: at 2, one row in 20 would be a false one, and there are many rows."""
PAPER = {  # run -> (pair, side, other pair, the paper's sentence)
    "linear (100, 1)": [
        ("VA", "<", BASELINE, "va_effective_100_1"),
        ("one-shot FGLS", "<", BASELINE, "fgls_effective_100_1"),
    ],
    "linear (1, 100)": [
        ("VA", "<", BASELINE, "va_effective_1_100"),
        ("one-shot FGLS", "<", BASELINE, "fgls_effective_1_100"),
        ("one-shot FGLS + VA", "<", "one-shot FGLS", "combination_over_fgls_1_100"),
        ("one-shot FGLS + VA", "<", "VA", "combination_over_va_1_100"),
        ("Aitken", ">", BASELINE, "aitken_suboptimal_1_100"),
    ],
    "linear (100, 1), equal noise": [
        ("VA", "<", BASELINE, "appendix_va_equal_noise"),
        ("one-shot FGLS", "<", BASELINE, "appendix_fgls_equal_noise"),
    ],
    "linear (1, 1)": [
        ("VA", "<", BASELINE, "appendix_va_equal_scale"),
        ("one-shot FGLS", "<", BASELINE, "appendix_fgls_equal_scale"),
    ],
    "logistic (100, 100)": [
        ("VA", "<", BASELINE, "va_improves_100_100"),
        ("ERMA", "<", BASELINE, "erma_improves_100_100"),
    ],
    "logistic (10, 100)": [
        ("VA", "<", BASELINE, "va_improves_10_100"),
        ("ERMA", "<", BASELINE, "erma_improves_10_100"),
    ],
    "MNIST, wrong labels": [("ERMA", "<", BASELINE, "mnist_erma_improves")],
}
"""Sentences of paper 000 on two methods' errors, which the table judges with hyperparameters chosen for each."""


def judged(data: xarray.Dataset, selection_seeds: int) -> xarray.Dataset:
    """Each pair at its chosen point, on the seeds that did not choose: dim ``point`` becomes ``pair``.

    A point is chosen by its mean validation loss over the first seeds; one where a run diverged counts as infinite.

    Raises:
        ValueError: fewer than two seeds are left to judge.
    """
    if data.sizes["seed"] < selection_seeds + 2:
        raise ValueError(f"{selection_seeds} seeds choose and two or more must judge, got {data.sizes['seed']} in all.")
    loss = data["validation"].isel(seed=slice(selection_seeds)).mean("seed", skipna=False).values
    loss, names = np.where(np.isfinite(loss), loss, np.inf), data["pair"].values.astype(str)
    best = [min(np.flatnonzero(names == name), key=lambda i: loss[i]) for name in dict.fromkeys(names)]
    return data.isel(point=best, seed=slice(selection_seeds, None)).swap_dims(point="pair")


def errors(data: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """Pair -> test errors by seed, of what :func:`judged` gives."""
    return {str(name): data["test"].isel(pair=i, drop=True) for i, name in enumerate(data["pair"].values)}


def ranked(by_pair: dict[str, xarray.DataArray]) -> list[str]:
    """Pairs from the lowest mean error over the finite seeds to the highest; those that never end come last."""
    means = {name: values.where(np.isfinite(values)).mean().fillna(np.inf).item() for name, values in by_pair.items()}
    return sorted(means, key=means.get)


def chosen(data: xarray.Dataset, pair: str) -> str:
    """The hyperparameters that were chosen for a pair, to read."""
    one = data.sel(pair=pair)
    own = {name: one[name].item() for name in data.coords if name != "pair" and data[name].dims == ("pair",)}
    return ", ".join(f"{name} {value:.3g}" for name, value in own.items() if not np.isnan(value))


def diverged(data: xarray.Dataset, pair: str) -> str:
    """How many of all the runs of a pair ended in numbers that are not finite."""
    own = data["test"].values[data["pair"].values.astype(str) == pair]
    return f"{(~np.isfinite(own)).sum()} of {own.size} runs diverged"


def claims(results, pairs, selection_seeds: int) -> list[Claim]:
    """The paper's sentences, then each problem's pairs from best to worst, then what each problem leaves out."""
    found = []
    kept = {name: judged(data, selection_seeds) for name, data in results.items()}
    by_run = {name: errors(data) for name, data in kept.items()}
    for run, sentences in PAPER.items():
        for pair, side, other, key in sentences:
            if {pair, other} <= set(by_run.get(run, ())):
                a, b = by_run[run][pair], by_run[run][other]
                found.append(paired(key, a, side, b, **quote(key), z=Z, note="each at its own hyperparameters"))
    for run, by_pair in by_run.items():
        order = ranked(by_pair)
        for rank, pair in enumerate(order, 1):
            if pair != BASELINE:
                found.append(_against_baseline(run, pair, rank, len(order), by_pair, results[run], kept[run]))
    for run, by_pair in by_run.items():
        for pair in pairs:
            if pair.name not in by_pair:
                found.append(_left_out(run, pair))
    return found


def _slug(*names: str) -> str:
    return "_".join(re.sub(r"\W+", "_", name.lower()).strip("_") for name in names)


def _against_baseline(run, pair, rank, number, by_pair, data, kept) -> Claim:
    base = float(by_pair[BASELINE].mean())
    claim = paired(
        _slug(run, pair),
        by_pair[pair],
        "<",
        by_pair[BASELINE],
        statement=f"ours: {pair} has a lower test error than {BASELINE} ({run})",
        source=SOURCE,
        z=Z,
        note=f"rank {rank} of {number}; test error {float(by_pair[pair].mean()):.4g}, {BASELINE} {base:.4g}; "
        f"{chosen(kept, pair)}; {diverged(data, pair)}",
    )
    return claim


def _left_out(run, pair) -> Claim:
    statement = f"ours: {pair.name} has a lower test error than {BASELINE} ({run})"
    return Claim(_slug(run, pair.name), statement, SOURCE, None, None, None, 0, None, note=f"excluded: {reason(pair)}")


def figure(results, selection_seeds: int):
    """One panel a problem: the pairs from best to worst, with the change of the test error; and their mean rank."""
    runs = {name: errors(judged(data, selection_seeds)) for name, data in results.items()}
    columns = min(4, len(runs) + 1)
    rows = -(-(len(runs) + 1) // columns)
    most = max(map(len, runs.values()))
    drawn, axes = plt.subplots(
        rows, columns, figsize=(5.0 * columns, (0.2 * most + 1.1) * rows + 0.8), squeeze=False, layout="constrained"
    )
    panels = list(axes.flat)
    for axis, (name, by_pair) in zip(panels, runs.items(), strict=False):
        _panel(axis, name, by_pair, results[name]["test"].attrs.get("units", ""))
    _ranks(panels[len(runs)], runs)
    for axis in panels[len(runs) + 1 :]:
        axis.remove()
    seeds = next(iter(results.values())).sizes["seed"] - selection_seeds
    drawn.suptitle(
        f"Pairs of a loss rule and a sampling rule against {BASELINE}, each at hyperparameters chosen on "
        f"{selection_seeds} seeds, judged on {seeds} others\n"
        "bars: 95 % intervals of the paired difference; blue: better, red: worse by three standard errors",
        fontsize=12,
    )
    return drawn


def changes(by_pair: dict[str, xarray.DataArray]) -> dict[str, tuple[float, float]]:
    """Pair -> mean difference to no weighting and its standard error, in % of no weighting's mean error."""
    base = by_pair[BASELINE].values
    found = {}
    for pair, values in by_pair.items():
        difference = values.values - base
        difference = difference[np.isfinite(difference)]
        if difference.size > 1:
            scale = 100.0 / np.nanmean(base)
            spread = difference.std(ddof=1) / np.sqrt(difference.size)
            found[pair] = scale * difference.mean(), scale * spread
    return found


def _colour(mean: float, stderr: float) -> str:
    if abs(mean) < Z * stderr or mean == 0:
        return "0.35"
    return "C0" if mean < 0 else "C3"


def _panel(axis, name, by_pair, unit):
    found = changes(by_pair)
    order = [pair for pair in ranked(by_pair) if pair in found]
    limit = 1.1 * max([1.0, *(min(abs(m) + 2 * s, 60.0) for m, s in found.values())])
    for row, pair in enumerate(order):
        mean, stderr = found[pair]
        if mean > limit:
            axis.plot(limit * 0.97, row, ">", color="C3", ms=5)
            axis.text(limit * 0.93, row, f"{mean:+.0f} %", ha="right", va="center", fontsize=7, color="C3")
        else:
            axis.errorbar(mean, row, xerr=2 * stderr, fmt="o", ms=4, lw=1.2, capsize=2, color=_colour(mean, stderr))
    axis.axvline(0.0, color="0.5", lw=0.8, ls=":", zorder=0)
    axis.set_yticks(range(len(order)), order, fontsize=7.5)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == BASELINE else "normal")
    axis.set(
        xlim=(-limit, limit), ylim=(len(order) - 0.4, -0.6), xlabel=f"change of the test error (% of {BASELINE}'s)"
    )
    base = float(by_pair[BASELINE].mean())
    axis.set_title(f"{name}\n{BASELINE}: {base:.3g}{'' if unit in ('', '1') else ' ' + unit}", fontsize=10)
    axis.grid(axis="x", alpha=0.3, lw=0.5)


def _ranks(axis, runs):
    """Mean rank over the problems that run a pair, as a share: 0 is always best, 1 always worst."""
    shares = {}
    for by_pair in runs.values():
        order = ranked(by_pair)
        for rank, pair in enumerate(order):
            shares.setdefault(pair, []).append(rank / max(len(order) - 1, 1))
    order = sorted(shares, key=lambda pair: np.mean(shares[pair]))
    for row, pair in enumerate(order):
        axis.plot(shares[pair], [row] * len(shares[pair]), "|", color="0.6", ms=7)
        axis.plot(np.mean(shares[pair]), row, "D", color="k", ms=4)
    names = [f"{pair} ({len(shares[pair])})" for pair in order]
    axis.set_yticks(range(len(order)), names, fontsize=7.5)
    axis.set(xlim=(-0.03, 1.03), ylim=(len(order) - 0.4, -0.6), xlabel="rank (0: best pair, 1: worst)")
    axis.set_title("rank by problem, and mean\n(in how many problems)", fontsize=10)
    axis.grid(axis="x", alpha=0.3, lw=0.5)
