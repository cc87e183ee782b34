"""Defines the command ``mixjax watch``. Packages that are slow to import are imported when the command runs."""

import math
from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import Mistake, output_file, reported

__all__ = ["watch"]


def watch(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="The result that a run will write, or a ledger.")],
    once: Annotated[bool, typer.Option("--once", help="Print how far the run is now, and end.")] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, help="Time between two looks at the files.")
    ] = 2.0,
    html: Annotated[bool, typer.Option("--html", help="Keep a page too, watch.html, which refreshes itself.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page's file, in place of watch.html.")] = None,
) -> None:
    """Watch a run while it goes on: progress, weights, losses, epochs.

    DIR is what `mixjax run` writes, such as results/NAME, also before it is there; or the folder or file of a ledger of
    a live mix. Only the ends of files that the run writes are read, from this or another machine that sees them, and
    the time that this takes is kept below half a percent of one core. Ctrl-C ends watching, not the run.

    \b
    Examples:
      mixjax watch results/quickstart
      mixjax watch results/quickstart --once
      mixjax watch run/ledger.jsonl --once --html

    Each part of a config has a bar. By domain it shows the sampling weight q and the loss weight c, the last loss, the
    share of rows drawn lately beside the share that was asked for, and epochs beside their limit. A terminal that is
    narrow gets fewer columns, and one without colour none; where the output is no terminal, --once is meant.
    """
    with reported(Mistake, OSError, ValueError, ImportError, interrupted="the run goes on"):
        from rich.console import Console

        from mixjax.cli.watching import watch_run

        if not math.isfinite(every):
            raise Mistake(f"--every takes a number of seconds of at least 0.2, got {every}")
        page = None
        if html or out is not None:
            page = output_file("--out", Path("watch.html") if out is None else out, (".html",))
        console = Console()
        once = once or not console.is_terminal
        seen = watch_run(path, once=once, every=every, page=page, console=console)
        if page is not None:
            typer.echo(page)
        if once and seen.state == "waiting":
            raise typer.Exit(2)
