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
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config; may be given several times."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be run: runs, chunks, memory, operations, time; write nothing."),
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Trace the run into DIR.profile, for TensorBoard's or Perfetto's viewer.")
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Also send records of the progress to tensorboard (into DIR.tensorboard), wandb or trackio; may be given "
        "several times.",
    ),
]
