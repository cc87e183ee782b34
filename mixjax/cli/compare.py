"""Defines the command ``mixjax compare``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import Mistake, reported

__all__ = ["compare"]


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RESULT", help="Folders that `mixjax run` or `sweep` wrote.")],
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="The metric to compare. [default: the only one]")
    ] = None,
    better: Annotated[
        str | None, typer.Option(metavar="lower|higher", help="Which values of the metric win.  [required]")
    ] = None,
    along: Annotated[
        str | None,
        typer.Option(
            metavar="DIM",
            help="What is compared: result, run, an axis of the sweep or a dimension of the metric. [default: the only "
            "choice]",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The label to compare with. [default: the first]")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="DIM=LABEL", help="Keep this label only; repeatable."),
    ] = None,
    mean: Annotated[
        list[str] | None, typer.Option(metavar="DIM", help="Average over this dimension, in each seed.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Take each label at its own best setting, chosen by METRIC on half of the seeds; the others judge, "
            "so run twice as many.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the differences: .png, .pdf, .svg or .html."),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write the page comparison.html.")] = False,
) -> None:
    """Compare with a baseline over paired seeds: a table, a figure.

    \b
    Examples:
      mixjax compare results/quickstart --metric accuracy --better higher
      mixjax compare results/quickstart --metric accuracy --better higher \\
          --baseline erma --select step=100
      mixjax compare results/grid --metric accuracy --better higher \\
          --along method --best accuracy
      mixjax compare results/quickstart results/again --metric accuracy \\
          --better higher --out difference.png

    A row compares a label along DIM with the baseline: both means, the mean difference ± standard error over paired
    seeds, in how many seeds the label is better, the p-value of a paired t-test, corrected by Holm's method, and the
    verdict: better or worse where this p is at most 0.05, else undecided. Seeds in which one of the two diverged are
    left out and counted. A metric is taken at its last step; other dimensions make further rows. In Python:
    mixjax.runner.comparison.paired_table.
    """
    with reported(Mistake, OSError, ImportError):
        from mixjax.cli.comparing import compare_results

        compare_results(
            paths,
            metric=metric,
            better=better,
            along=along,
            baseline=baseline,
            select=select or (),
            mean=mean or (),
            best=best,
            out=out,
            html=html,
        )
