"""The command `mixjax show`; what it takes a while to import is imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import reported


def show(
    path: Annotated[Path, typer.Argument(metavar="RESULT", help="A folder that `mixjax run` or `sweep` wrote.")],
) -> None:
    """Show what a result holds: runs, claims, time, final metrics.

    Metrics are taken at the last label of dimensions without text labels, such as step: mean ± standard error over the
    seeds in which they are finite, whose number is given where it is not all. Of the claims those that do not hold, or
    are undecided, are listed.

    \b
    Examples:
      mixjax show results/quickstart
      mixjax show results/quickstart.partial       what is left of a run whose figure failed
    """
    with reported(OSError, ImportError):
        from mixjax.cli.summary import summary

        for line in summary(path):
            typer.echo(line)
