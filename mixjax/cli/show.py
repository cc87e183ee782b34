"""Defines the command ``mixjax show``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import reported

__all__ = ["show"]


def show(
    path: Annotated[Path, typer.Argument(metavar="RESULT", help="A folder that `mixjax run` or `sweep` wrote.")],
    html: Annotated[
        bool, typer.Option("--html", help="Print the path of the result's page, report.html, in place of a summary.")
    ] = False,
) -> None:
    """Show what a result holds: runs, claims, time, final metrics.

    A metric is shown as mean ± standard error over the seeds in which it is finite. If there are others, the number
    of the finite ones follows. Along dimensions without text labels, such as step, the last label is taken. Only claims
    that do not hold or are undecided are listed.

    \b
    Examples:
      mixjax show results/quickstart
      mixjax show results/grid
      mixjax show results/quickstart --html

    --html makes the page where an older result lacks it: claims, figure, weights over time, settings, in one file for
    any browser. What is left of a run whose figure failed is in results/NAME.partial, and can be shown as well.
    """
    with reported(OSError, ImportError):
        if html:
            from mixjax.cli.html import report_page

            typer.echo(report_page(path))
            return
        from mixjax.cli.summary import summary

        for line in summary(path):
            typer.echo(line)
