"""Puts the commands of ``mixjax`` together, and holds the help of ``mixjax`` itself."""

from typing import Annotated

import typer

import mixjax
from mixjax.cli.compare import compare
from mixjax.cli.data import data
from mixjax.cli.design import make_design
from mixjax.cli.listing import list_
from mixjax.cli.live import make_live
from mixjax.cli.new import new
from mixjax.cli.run import run
from mixjax.cli.show import show
from mixjax.cli.sites import sites
from mixjax.cli.sweep import sweep
from mixjax.cli.watch import watch

__all__ = ["make_app"]


def make_app() -> typer.Typer:
    """Makes the application from its commands.

    Returns:
        The application; it is called with the arguments.
    """
    # Plain text: rich would rewrap the examples, and its tracebacks would hide where an experiment failed.
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_top)
    app.command("run")(run)
    app.command("sweep")(sweep)
    app.command("list")(list_)
    app.command("new")(new)
    app.command("data")(data)
    app.command("compare")(compare)
    app.command("show")(show)
    app.command("sites")(sites)
    app.command("watch")(watch)
    app.add_typer(make_live(), name="live")
    app.add_typer(make_design(), name="design")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mixjax {mixjax.__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train on several domains with adaptive loss and sampling weights.

    A config is a TOML file. It names an experiment and says what to repeat it over. Running it gives a page with its
    claims, a figure and metrics.

    \b
    Examples:
      mixjax list                     what can be run
      mixjax run quickstart           run it; results/quickstart/ has the result
      mixjax run --help               how to change its values
      mixjax sweep quickstart --vary gamma1=log:1e-3:1:5 --seeds 20
      mixjax watch results/quickstart --once
      mixjax show results/quickstart  what a result holds
      mixjax compare results/quickstart --metric accuracy --better higher
      mixjax new my_project           a small project of your own
      mixjax data mnist               fetch a data set of some experiments
    """
