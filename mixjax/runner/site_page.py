"""Writes the report of :mod:`mixjax.runner.sites` as a page, and draws it, for readers who know their site best."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixjax.checks import requires
from mixjax.legends import named_legend
from mixjax.runner.sites import ALL_SITES, MIN_CASES, SiteReport, decimals_of
from mixjax.runner.texts import markdown_table

with requires("experiments", "mixjax.runner.site_page"):
    import pandas as pd

__all__ = ["site_figure", "site_markdown"]

# A figure with more has no room on a screen, and from 300 sites on it would have more pixels than a PNG may have.
_MAX_SITES, _MAX_LABELS = 40, 6

_HOW_TO_READ = """\
- **cases**: patients with a score. Where some have none, their number follows.
- **median (quartiles)**: half of the cases score between the two quartiles; their distance is the IQR.
- **difference**: how much higher the mean score is under the method than under the other, over the same cases. In
  brackets: the 95 % interval, by resampling the cases of the site; the trained models are taken as they are. Which
  scores are good: {better} ones.
- **verdict**: *better* or *worse* where the interval does not hold 0; else *no difference seen*, which does not say
  that there is none. A site with fewer than {min_cases} cases has *too few cases* for an interval.
- **all sites**: the cases of all sites in one heap. A site with many cases has a large say in these rows.
- **chance**: where two methods are equally good, about one comparison in 20 is still called better or worse. This page
  has {num} with a verdict; those with too few cases are not among them."""

_NO_BASELINE = (
    "There are no differences, as no baseline was named. One of these methods can be it: {methods}. On the command "
    "line: `mixjax sites SCORES --baseline METHOD`."
)


def site_markdown(report: SiteReport, title: str = "Scores by site") -> list[str]:
    """Writes a page of Markdown: how to read it, then for each label the scores and the comparisons of each site.

    Args:
        report: from :func:`mixjax.runner.sites.site_report`.
        title: the heading.

    Returns:
        The lines.
    """
    # pandas: a table without rows has no columns.
    num = np.isfinite(report.differences["low"].to_numpy(float)).sum() if len(report.differences) else 0
    told = _HOW_TO_READ.format(better=report.better, min_cases=MIN_CASES, num=num)
    decimals = decimals_of(report.scores["score"])
    lines = [f"# {title}", "", *told.splitlines()]
    methods = list(dict.fromkeys(report.levels["method"]))
    if not len(report.differences) and len(methods) > 1:
        lines += ["", _NO_BASELINE.format(methods=", ".join(methods))]
    for label in dict.fromkeys(report.levels["label"]):
        lines += ["", f"## {label or 'Scores'}", ""]
        levels = report.levels[report.levels["label"] == label]
        head = ["site", "method", "cases", "mean", "median (quartiles)", "IQR", "worst cases"]
        lines += markdown_table(head, [_level_cells(row, decimals) for _, row in levels.iterrows()])
        if len(report.differences):
            rows = report.differences[report.differences["label"] == label]
            head = ["site", "under", "in place of", "cases", "difference (95 % interval)", "verdict"]
            lines += ["", *markdown_table(head, [_difference_cells(row, decimals) for _, row in rows.iterrows()])]
    return lines


def site_figure(report: SiteReport, title: str = "Scores by site") -> Any:
    """Draws every case's score by site and method and, below, the differences with their intervals.

    Each label has a column. Above, a dot is a case, the thick bar reaches from quartile to quartile, and the white line
    is the median. Below, a site that has too few cases for an interval has a hollow dot.

    With more than 40 sites those are drawn whose scores are worst under the first method, and with more than 6 labels
    the first ones. The title says so. Long names are cut.

    Args:
        report: from :func:`mixjax.runner.sites.site_report`.
        title: the heading.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    labels, methods = (list(dict.fromkeys(report.levels[name])) for name in ("label", "method"))
    pairs = [tuple(pair) for pair in _pairs(report)]
    sites, num_sites, num_labels = _drawn_sites(report), len(set(report.levels["site"])), len(labels)
    labels = labels[:_MAX_LABELS]
    heights = [0.6 + len(sites) * (0.1 + 0.18 * num) for num in (len(methods), len(pairs))]
    num_rows = 2 if pairs else 1
    # An inch holds about 12 letters of the names at both sides.
    letters = max(len(_short(site)) for site in sites) + max(len(_short(method)) for method in methods)
    width = 4 * len(labels) + max(2.5, 0.7 + letters / 12)
    # Not by pyplot, which would keep every figure in memory.
    figure = Figure(figsize=(width, sum(heights[:num_rows]) + 1.2), layout="constrained")
    axes = figure.subplots(num_rows, len(labels), squeeze=False, sharey="row", height_ratios=heights[:num_rows])
    entries = [{} for _ in range(num_rows)]
    for column, label in enumerate(labels):
        entries[0] |= _draw_levels(axes[0, column], report, label, sites, methods)
        axes[0, column].set_title(_short(label, 40) or "score")
        if pairs:
            entries[1] |= _draw_differences(axes[1, column], report, label, sites, pairs)
    for row, drawn in zip(axes, entries, strict=True):
        named_legend(
            row[-1],
            list(drawn.values()),
            [_legend_name(key) for key in drawn],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            fontsize=9,
        )
    if len(sites) < num_sites:
        title += f"\n{len(sites) - 1} of {num_sites - 1} sites: the worst under {_short(methods[0], 40)}"
    if len(labels) < num_labels:
        title += f"\n{len(labels)} of {num_labels} labels"
    figure.suptitle(title)
    for text in figure.findobj(Text):
        # A name may hold dollar signs.
        text.set_parse_math(False)
    return figure


def _draw_levels(axis, report, label, sites, methods):
    """Draws the cases of each site, with one row for each method, and returns what a legend shows of each method."""
    rows, scores = (
        table[(table["label"] == label) & table["site"].isin(sites)] for table in (report.levels, report.scores)
    )
    entries = {}
    for number, method in enumerate(methods):
        own = rows[rows["method"] == method].set_index("site")
        place = _places(sites, number, len(methods))
        where = pd.Series(place, sites).reindex(own.index)
        cases = scores[(scores["method"] == method) & scores["score"].notna()]
        axis.plot(cases["score"], cases["site"].map(dict(zip(sites, place, strict=True))), ".", color="0.45", ms=4)
        entries[(method,)] = axis.hlines(
            where, own["low_quartile"], own["high_quartile"], color=f"C{number}", lw=7, alpha=0.6
        )
        # On a site's only case the line would hide the dot.
        middle = own["median"].where(own["low_quartile"].notna())
        axis.plot(middle, where, "|", color="white", ms=7, mew=2)
    counts = rows.groupby("site", sort=False)["cases"].max()
    _name_sites(axis, [f"{_short(site)} ({counts.get(site, 0)})" for site in sites])
    axis.set_xlabel(f"score of each case, {report.better} is better")
    return entries


def _draw_differences(axis, report, label, sites, pairs):
    """Draws the differences of each site, with one row for each pair of methods, and returns a legend's entries."""
    rows = report.differences[(report.differences["label"] == label) & report.differences["site"].isin(sites)]
    axis.axvline(0.0, color="0.4", lw=1)
    entries = {}
    for number, (method, baseline) in enumerate(pairs):
        own = rows[(rows["method"] == method) & (rows["baseline"] == baseline)].set_index("site")
        where = pd.Series(_places(sites, number, len(pairs)), sites).reindex(own.index)
        # Other colours than those of the methods above.
        colour, sure = f"C{number + 5}", own["low"].notna()
        axis.hlines(where, own["low"], own["high"], color=colour, lw=2)
        (entries[(method, baseline)],) = axis.plot(own["difference"][sure], where[sure], "o", color=colour, ms=5)
        axis.plot(own["difference"][~sure], where[~sure], "o", color=colour, ms=5, mfc="white")
    _name_sites(axis, [_short(site) for site in sites])
    good = "right" if report.better == "higher" else "left"
    axis.set_xlabel(f"difference, 95 % interval; {good} is better")
    return entries


def _drawn_sites(report):
    """Returns the sites that a figure has room for, in their order, and all sites together."""
    levels = report.levels[report.levels["method"] == report.levels["method"].iloc[0]]
    means = levels[levels["site"] != ALL_SITES].groupby("site", sort=False)["mean"].mean()
    worst = set(means.sort_values(ascending=report.better == "higher", kind="stable").index[:_MAX_SITES])
    return [*(site for site in means.index if site in worst), ALL_SITES]


def _short(name, width=30):
    """Returns a name in as many characters, with its beginning and its end, which often tells it from others."""
    name = " ".join(name.split())
    return name if len(name) <= width else f"{name[: width * 2 // 3 - 1]}…{name[-(width // 3) :]}"


def _legend_name(names):
    """Returns the name of a method, or of the difference between two, in two lines where it is long."""
    separator = "\n- " if sum(map(len, names)) > 30 else " - "
    return separator.join(map(_short, names))


def _places(sites, number, num):
    """Returns the height of each site's row of one of ``num`` methods; the first site stands on top."""
    return -np.arange(len(sites)) + 0.3 - 0.6 * (number + 0.5) / num


def _name_sites(axis, names):
    axis.set(yticks=-np.arange(len(names)), yticklabels=names, ylim=(-len(names) + 0.5, 0.5))
    # The last one is all sites together.
    axis.axhline(1.5 - len(names), color="0.6", lw=0.8, ls=":")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3, lw=0.5)


def _pairs(report: SiteReport) -> list[list[str]]:
    if not len(report.differences):
        return []
    return report.differences[["method", "baseline"]].drop_duplicates().to_numpy().tolist()


def _number(value: float, decimals: int) -> str:
    return "-" if np.isnan(value) else f"{value:z.{decimals}f}"


def _signed(value: float, decimals: int) -> str:
    if np.isnan(value):
        return "-"
    # An end of an interval keeps its side of 0, by which the verdict is made: -0.042 is -0.04 here, not 0.0.
    return f"{value:+.1g}" if value and not round(value, decimals) else f"{value:+.{decimals}f}"


def _level_cells(row: Any, decimals: int) -> list[str]:
    cases = str(row["cases"])
    if row["without_score"]:
        cases += f", {row['without_score']} without a score"
    mean, middle, low, high, iqr = (
        _number(row[name], decimals) for name in ("mean", "median", "low_quartile", "high_quartile", "iqr")
    )
    spread = middle if low == "-" else f"{middle} ({low} to {high})"
    return [row["site"], row["method"], cases, mean, spread, iqr, row["worst"] or "-"]


def _difference_cells(row: Any, decimals: int) -> list[str]:
    mean, low, high = (_signed(row[name], decimals) for name in ("difference", "low", "high"))
    difference = mean if low == "-" else f"{mean} ({low} to {high})"
    return [row["site"], row["method"], row["baseline"], str(row["cases"]), difference, row["verdict"]]
