"""Defines the arguments and options that ``mixjax run`` and ``mixjax sweep`` share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ConfigArgument", "DryRunOption", "ProfileOption", "SetOption", "TrackOption"]

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A TOML file, or the name of a config; `mixjax list` shows both.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config; repeatable."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be run: size and time."),
]
ProfileOption = Annotated[bool, typer.Option("--profile", help="Trace the run into DIR.profile, for Perfetto.")]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Send progress to tensorboard, wandb or trackio too.",
    ),
]
