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
            help="The dimension whose labels are compared: result, run, an axis of the sweep or a dimension of the "
            "metric. [default: result if several are given, else the only dimension with text labels, else the only "
            "axis or run]",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The label along DIM to compare with. [default: the first]")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="DIM=LABEL", help="Keep this label; may be given several times, also for one DIM."),
    ] = None,
    mean: Annotated[
        list[str] | None, typer.Option(metavar="DIM", help="Average over this dimension of the metric, in each seed.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Take each label at its own best setting: the point of the sweep whose mean of METRIC over the first "
            "half of the seeds is best. The other half judges.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the differences, with 95 % intervals: .png, .pdf, .svg or .html."),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write comparison.html, as --out FILE.html does.")] = False,
) -> None:
    """Compare with a baseline over paired seeds: a table, a figure.

    \b
    Examples:
      mixjax compare results/quickstart --metric accuracy --better higher
      mixjax compare results/quickstart --metric accuracy --better higher --baseline erma --select step=100
      mixjax compare results/grid --metric accuracy --better higher --along gamma1 --select method=erma
      mixjax compare results/grid --metric accuracy --better higher --along method --best accuracy
      mixjax compare results/quickstart results/again --metric accuracy --better higher --out difference.png

    The labels compared are methods, values of an axis, runs, or results of one experiment. Each row of the table is a
    label along DIM. It shows the label's mean and the baseline's, the mean of the differences ± standard error over
    paired seeds, the number of seeds in which the label is better, and the p-value of the two-sided paired t-test,
    corrected by Holm's method for all rows of the table. Seeds in which the label or the baseline diverged (is not
    finite) are left out and counted.

    With --best, axes and columns of points that are neither compared nor selected are settings, and each label has its
    own: the best of many settings is too good by chance on the seeds that chose it, so other seeds judge. METRIC is
    better where --better says so too; it may be another metric, such as a loss on validation points.

    Dimensions that are neither compared nor selected make further rows, and so do runs and results. Only a metric's own
    dimensions without text labels, such as step, are taken at their last label. The line below the title says so.

    In Python: mixjax.runner.comparison.paired_table.
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
