"""Shows four simulated centres their own Dice scores under three weightings, by region of the tumour.

Needs a result of ``segmentation.toml``, whose cases are real anatomies with simulated tumours and scanners. A test case
that several splits have tested counts once, with the mean of its scores.

python -m experiments.hardness_sampling.segmentation_sites results/segmentation
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray

from experiments.hardness_sampling.segmentation_report import MAIN, NESTEROV, name
from mixjax.files import write_whole
from mixjax.runner import results as results_lib
from mixjax.runner.result_scores import result_scores
from mixjax.runner.site_page import site_figure, site_markdown
from mixjax.runner.sites import ALL_SITES, SiteReport, site_report

__all__ = ["PAGE", "WEIGHTINGS", "draws", "main", "page", "reading", "scores_of"]

PAGE = Path(__file__).with_name("SITES_SEGMENTATION.md")
FIGURE = "sites_segmentation.png"
WEIGHTINGS = {name(0): "volume", name(0, uniform=True): "uniform", name(MAIN): "hardness"}
"""The method of the experiment -> the word that sites know."""

HEAD = """\
A SIMULATION: real brain anatomies with simulated tumours, contrasts and scanners, at four centres with 40, 30, 20 and 6
training cases ([how](../../configs/hardness_sampling/segmentation.toml)). The score of a case is the Dice score, in %,
of a 3-D U-Net after a short training. Under *volume* weighting every case is drawn alike (ERM), and under *uniform*
weighting every centre is; *hardness* draws cases with a high loss more often (β = {beta:g}, without importance
weights). {num_seeds} random splits; a case's score is the mean over the splits in which it was tested.

The smallest centre, low field, had {draws} of the draws.

{reading}

`mixjax run configs/hardness_sampling/segmentation.toml` and then
`python -m experiments.hardness_sampling.segmentation_sites results/segmentation` make this page again;
[the guide](../guides/sites.md) tells how to make one of your own scores. Real patients:
[four hospitals](SITES.md)."""


def scores_of(results: results_lib.Results) -> pd.DataFrame:
    """Lists the scores of the three weightings, with one row for each score.

    Raises:
        KeyError: the run ``NESTEROV``, or a weighting, is missing.
    """
    data = results[NESTEROV].sel({"method": list(WEIGHTINGS)})
    return result_scores({NESTEROV: data}).replace({"method": WEIGHTINGS})


def reading(report: SiteReport) -> str:
    """Says in words where each weighting is better or worse than volume weighting: for each region the centres."""
    lines = []
    for method in list(WEIGHTINGS.values())[1:]:
        rows = report.differences
        rows = rows[(rows["method"] == method) & (rows["baseline"] == "volume") & (rows["site"] != ALL_SITES)]
        told = []
        for verdict in ("better", "worse"):
            sites = rows[rows["verdict"] == verdict].groupby("label", sort=False)["site"].agg(", ".join)
            told += [f"{verdict} for {label} at {where}" for label, where in sites.items()]
        text = (
            f"- **{method}** in place of volume, of {len(rows)} comparisons: {'; '.join(told) or 'no difference seen'}."
        )
        lines.append(textwrap.fill(text, 120, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines)


def draws(data: xarray.Dataset) -> str:
    """Says which share of the draws the smallest centre had under each weighting."""
    shares = 100 * data["centre_share"].mean(["seed", "epoch"])
    told = [f"{shares.sel({'method': method}).item():.0f} % ({word})" for method, word in WEIGHTINGS.items()]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def page(report: SiteReport, data: xarray.Dataset) -> str:
    """Writes the page, whose figure lies beside it, of a report and of the run that it is made of."""
    title, *lines = site_markdown(report, "Four simulated centres")
    head = HEAD.format(beta=MAIN, num_seeds=data.sizes["seed"], draws=draws(data), reading=reading(report))
    return "\n".join([title, "", head, "", f"![Scores by centre]({FIGURE})", "", *lines[1:]]) + "\n"


def main(arguments: Sequence[str] | None = None, target: Path = PAGE) -> None:
    """Reads the result, and writes the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="the folder of a result of segmentation.toml")
    results = results_lib.read(parser.parse_args(arguments).result)
    report = site_report(scores_of(results), ["volume", "uniform"])
    write_whole(target, page(report, results[NESTEROV]))
    site_figure(report, "Dice score by centre, %: SIMULATED tumours and scanners").savefig(
        target.with_name(FIGURE), dpi=90
    )


if __name__ == "__main__":
    main()
