"""Writes what the table says: every pair against no weighting, on the seeds that chose nothing."""

import re
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray

from experiments.loss_and_sampling_weights.sentences import quote
from experiments.table.pairs import reason
from mixjax.runner.claims import Claim, paired
from mixjax.runner.comparison import paired_table
from mixjax.statistics import critical_value

__all__ = ["BASELINE", "claims", "compared", "figure", "judged", "markdown"]

BASELINE = "no weighting"
SOURCE = "problems of paper 000, groups of Adult"
# standard errors that a verdict takes of many seeds: there are many rows, and at 2 one in 20 would be a false one
Z = 3.0
# problem -> (pair, side, other pair, the paper's sentence): paper 000's sentences on two methods' errors, judged here
# with hyperparameters chosen for each
PAPER: dict[str, list[tuple[str, Literal["<", ">"], str, str]]] = {
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


def judged(data: xarray.Dataset, selection_seeds: int) -> xarray.Dataset:
    """Returns each pair at its chosen point, on the seeds that did not choose: dim ``point`` becomes ``pair``.

    The point with the lowest mean validation loss over the first seeds is chosen. A run that diverged makes the mean of
    its point infinite.

    Raises:
        ValueError: fewer than two seeds are left to judge.
    """
    if data.sizes["seed"] < selection_seeds + 2:
        raise ValueError(f"{selection_seeds} seeds choose and two or more must judge, got {data.sizes['seed']} in all.")
    loss = data["validation"].isel(seed=slice(selection_seeds)).mean("seed", skipna=False).values
    loss, names = np.where(np.isfinite(loss), loss, np.inf), data["pair"].values.astype(str)
    best = [min(np.flatnonzero(names == name), key=lambda i: loss[i]) for name in dict.fromkeys(names)]
    return data.isel(point=best, seed=slice(selection_seeds, None)).swap_dims(point="pair")


def compared(results, selection_seeds: int) -> pd.DataFrame:
    """Returns one row for each problem and pair, problem by problem from best to worst, no weighting among them.

    Columns:

    - ``problem``, ``pair``, ``rank``;
    - the columns of ``paired_table``, whose Holm correction is over all rows;
    - ``percent`` and ``percent_error``: the difference and its standard error in % of no weighting's test error;
    - ``chosen``: the point's hyperparameters, to read;
    - ``diverged``: the share of all the pair's runs that did.
    """
    kept = {name: judged(data, selection_seeds) for name, data in results.items()}
    frame = pd.concat(data["test"].to_dataframe().reset_index().assign(problem=name) for name, data in kept.items())
    frame = frame[["problem", "pair", "seed", "test"]].astype({"pair": str})
    table = paired_table(frame, "test", "pair", baseline=BASELINE, better="lower")
    zero = table.drop_duplicates("problem").assign(pair=BASELINE, difference=0.0, stderr=0.0, low=0.0, high=0.0)
    zero = zero.assign(p_value=np.nan, p_holm=np.nan, left_out=0)
    zero["value"] = zero["baseline"] = [
        frame[(frame.problem == p) & (frame.pair == BASELINE)].test.mean() for p in kept
    ]
    table = pd.concat([zero, table])
    order = {name: number for number, name in enumerate(kept)}
    table = table.sort_values(
        ["problem", "difference"], key=lambda column: column.map(order) if column.name == "problem" else column
    )
    table["rank"] = table.groupby("problem", sort=False).cumcount() + 1
    for name in ("difference", "stderr"):
        table[{"difference": "percent", "stderr": "percent_error"}[name]] = 100.0 * table[name] / table.baseline
    rows = list(zip(table.problem, table.pair, strict=True))
    table["chosen"] = [_chosen(kept[problem], pair) for problem, pair in rows]
    table["diverged"] = [_diverged(results[problem], pair) for problem, pair in rows]
    return table.reset_index(drop=True)


def _chosen(data: xarray.Dataset, pair: str) -> str:
    """Writes the hyperparameters that were chosen for a pair, to read."""
    one = data.isel(pair=list(data["pair"].values).index(pair))
    own = {name: float(one[name]) for name in data.coords if name not in ("pair", "point", "seed", "domain")}
    return ", ".join(f"{name} {value:.3g}" for name, value in own.items() if not np.isnan(value))


def _diverged(data: xarray.Dataset, pair: str) -> float:
    own = data["test"].isel(point=data["pair"].values.astype(str) == pair)
    return float((~np.isfinite(own)).mean())


def claims(results, selection_seeds: int) -> list[Claim]:
    """Judges the paper's sentences, then every pair on every problem, from best to worst."""
    found = []
    # problem -> pair -> test error by seed
    errors = {}
    for problem, data in results.items():
        kept = judged(data, selection_seeds)
        errors[problem] = {str(pair): kept["test"].isel(pair=i) for i, pair in enumerate(kept["pair"].values)}
    for problem, sentences in PAPER.items():
        for pair, side, other, key in sentences:
            if {pair, other} <= set(errors.get(problem, ())):
                a, b = errors[problem][pair], errors[problem][other]
                note = "test errors, each at the hyperparameters chosen for it"
                found.append(paired(key, a, side, b, **quote(key), z=Z, note=note))
    table = compared(results, selection_seeds)
    number = table.groupby("problem").size()
    for row in table[table.pair != BASELINE].itertuples():
        found.append(
            paired(
                _slug(row.problem, row.pair),
                errors[row.problem][row.pair],
                "<",
                errors[row.problem][BASELINE],
                statement=f"ours: {row.pair} has a lower test error than {BASELINE} ({row.problem})",
                source=SOURCE,
                z=Z,
                note=f"rank {row.rank} of {number[row.problem]}; {row.value:.4g} against {row.baseline:.4g}, "
                f"{row.percent:+.1f} ± {row.percent_error:.1f} %; {row.chosen}; {100 * row.diverged:.0f} % of its runs "
                f"diverged; p after Holm {row.p_holm:.2g}",
            )
        )
    return found


def _slug(*names: str) -> str:
    return "_".join(re.sub(r"\W+", "_", name.lower()).strip("_") for name in names)


def markdown(results, pairs, selection_seeds: int) -> str:
    """Writes the ranked table: pairs by their mean rank, problems side by side, and why a cell is empty."""
    table = compared(results, selection_seeds)
    cells, order = table.set_index(["pair", "problem"]), mean_ranks(table)
    problems = list(results)
    lines = ["| pair | mean rank | " + " | ".join(problems) + " |", "|" + " --- |" * (2 + len(problems))]
    for pair, rank in order.items():
        row = [_cell(cells.loc[(pair, p)]) if (pair, p) in cells.index else "excluded" for p in problems]
        lines.append(f"| {pair} | {rank:.2f} | " + " | ".join(row) + " |")
    missing = {pair.name: [p for p in problems if (pair.name, p) not in cells.index] for pair in pairs}
    never = [
        f"| {name} | | " + " | ".join(["excluded"] * len(problems)) + " |" for name in missing if name not in order
    ]
    left_out = [
        f"- {pair.name} on {'; '.join(missing[pair.name])}: {reason(pair)}." for pair in pairs if missing[pair.name]
    ]
    seeds = next(iter(results.values())).sizes["seed"] - selection_seeds
    text = (
        f"Change of the test error, in % of {BASELINE}'s, ± standard error over {seeds} paired seeds; bold where the "
        "t-test's p after Holm's correction, over all cells, is below 0.05. The mean rank is over the problems that "
        "run the pair, 0 for always best and 1 for always worst."
    )
    return "\n".join([text, "", *lines, *never, "", "Excluded:", "", *(left_out or ["- nothing."])])


def _cell(row) -> str:
    if row.name[0] == BASELINE:
        return f"({row.value:.3g})"
    text = f"{row.percent:+.1f} ± {row.percent_error:.1f}"
    return f"**{text}**" if row.p_holm < 0.05 else text


def mean_ranks(table: pd.DataFrame) -> dict[str, float]:
    """Returns for each pair the mean over its problems of (rank - 1) / (pairs - 1), best first."""
    last = table.groupby("problem")["rank"].transform("max")
    share = ((table["rank"] - 1) / (last - 1).clip(lower=1)).groupby(table.pair).mean()
    return share.sort_values(kind="stable").to_dict()


def figure(results, selection_seeds: int):
    """Draws a panel for each problem, pairs from best to worst, with the change of the test error; and all ranks."""
    table = compared(results, selection_seeds)
    groups = [(name, table[table.problem == name]) for name in results]
    columns = min(4, len(groups) + 1)
    rows, most = -(-(len(groups) + 1) // columns), max(len(group) for _, group in groups)
    size = (5.0 * columns, (0.2 * most + 1.1) * rows + 0.8)
    drawn, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, (name, group) in zip(axes.flat, groups, strict=False):
        _panel(axis, name, group, results[name]["test"].attrs.get("units", ""))
    _ranks(axes.flat[len(groups)], table)
    for axis in axes.flat[len(groups) + 1 :]:
        axis.remove()
    seeds = next(iter(results.values())).sizes["seed"]
    drawn.suptitle(
        f"Pairs of a loss rule and a sampling rule against {BASELINE}, each at hyperparameters chosen on "
        f"{selection_seeds} seeds, judged on {seeds - selection_seeds} others\n"
        f"bars: 95 % intervals of the paired difference; blue: better, red: worse, by Student's t "
        f"at the level of {Z:g} standard errors",
        fontsize=12,
    )
    return drawn


def _panel(axis, name, group, unit):
    scale = 100.0 / group.baseline
    low, high = scale * group.low, scale * group.high
    limit = 1.1 * max(1.0, min(60.0, np.nanmax(high)), -np.nanmin(low))
    for place, row in enumerate(group.itertuples()):
        # The rule of the claims. A row without two seeds is never clear: its standard error is NaN.
        clear = abs(row.difference) > critical_value(Z, max(row.num_seeds, 2)) * row.stderr
        colour = ("C0" if row.difference < 0 else "C3") if clear else "0.35"
        if row.percent > limit:
            axis.plot(0.97 * limit, place, ">", color=colour, ms=5)
            axis.text(0.92 * limit, place, f"{row.percent:+.0f} %", ha="right", va="center", fontsize=7, color=colour)
        elif row.num_seeds > 1:
            reach = [
                [scale.iloc[place] * (row.difference - row.low)],
                [scale.iloc[place] * (row.high - row.difference)],
            ]
            axis.errorbar(row.percent, place, xerr=reach, fmt="o", ms=4, lw=1.2, capsize=2, color=colour)
    axis.axvline(0.0, color="0.5", lw=0.8, ls=":", zorder=0)
    _names(axis, list(group.pair))
    base = group.baseline[group.pair == BASELINE].item()
    axis.set(xlim=(-limit, limit), xlabel=f"change of the test error (% of {BASELINE}'s)")
    axis.set_title(f"{name}\n{BASELINE}: {base:.3g}{'' if unit in ('', '1') else ' ' + unit}", fontsize=10)


def _ranks(axis, table):
    last = table.groupby("problem")["rank"].transform("max")
    shares = ((table["rank"] - 1) / (last - 1).clip(lower=1)).groupby(table.pair).apply(list)
    order = mean_ranks(table)
    for place, (pair, mean) in enumerate(order.items()):
        axis.plot(shares[pair], [place] * len(shares[pair]), "|", color="0.6", ms=7)
        axis.plot(mean, place, "D", color="k", ms=4)
    _names(axis, [f"{pair} ({len(shares[pair])})" for pair in order])
    axis.set(xlim=(-0.03, 1.03), xlabel="rank (0: best pair, 1: worst)")
    axis.set_title("rank by problem, and mean\n(in how many problems)", fontsize=10)


def _names(axis, names):
    axis.set_yticks(range(len(names)), names, fontsize=7.5)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if re.sub(r" \(\d+\)$", "", label.get_text()) == BASELINE else "normal")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3, lw=0.5)
