"""Defines the commands ``mixjax live ...``. Packages that are slow to import are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import reported
from mixjax.cli.watch import watch

__all__ = ["make_live", "make_live_only"]


def make_live() -> typer.Typer:
    """Makes the group of commands about live mixes."""
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Look at mixes that move while a model trains.",
    )
    # With a callback, a group of one command keeps the command's name.
    group.callback()(_top)
    group.command("show")(show)
    return group


def make_live_only() -> typer.Typer:
    """Makes ``mixjax`` with this group and ``mixjax watch`` alone, which need fewer packages than other commands."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_top)
    app.command("watch")(watch)
    app.add_typer(make_live(), name="live")
    return app


def _top() -> None:
    """Look at mixes that move while a model trains."""


def show(
    path: Annotated[Path, typer.Argument(metavar="LEDGER", help="A file that mixjax.live.Ledger writes.")],
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw a figure into this file too.")] = None,
) -> None:
    """Show what was really drawn: rows or tokens, shares and epochs of each domain, and events.

    Rows, share and epochs are those since the first step. "asked" and "in force" are the sampling weights of the last
    step, before and after limits. The ledger may belong to a run that goes on.

    \b
    Examples:
      mixjax live show run/ledger.jsonl
      mixjax live show run/ledger.jsonl --figure ledger.png
    """
    with reported(ValueError, OSError, ImportError):
        from mixjax.files import writing
        from mixjax.live import read_ledger
        from mixjax.live.figures import ledger_figure
        from mixjax.live.ledger_table import ledger_lines

        ledger = read_ledger(path)
        for line in ledger_lines(ledger):
            typer.echo(line)
        if figure is not None:
            with writing(figure):
                ledger_figure(ledger).savefig(figure, dpi=150)
            typer.echo(f"figure: {figure}")
