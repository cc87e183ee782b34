"""Defines the command ``mixjax sweep``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.options import ConfigArgument, DryRunOption, ProfileOption, SetOption, TrackOption

__all__ = ["sweep"]


def sweep(
    config: ConfigArgument,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="An axis: KEY=0.1,0.2 or KEY=SCALE:START:STOP:NUM, with SCALE linear or log; KEY=erma,fgls; or "
            "KEY=[0.5,0.5],[0.9,0.1]. Several axes make a grid. With --random: KEY=SCALE:START:STOP, where SCALE may "
            "also be integer.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Seeds of each point. [default: the config's]")] = None,
    first_seed: Annotated[
        int | None, typer.Option(metavar="N", help="The first of these seeds. [default: the config's]")
    ] = None,
    random: Annotated[
        int | None, typer.Option(metavar="N", help="N random points, always the same, not a grid.")
    ] = None,
    chunk: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Runs in one call. [default: the config's]"),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder. [default: results/NAME_sweep]"),
    ] = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    track: TrackOption = None,
) -> None:
    """Sweep over numbers of a config, and draw every metric.

    \b
    Examples:
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:7 --seeds 20
      mixjax sweep configs/quickstart.toml --vary gamma1=0.1,1 --vary gamma2=1,2
      mixjax sweep configs/quickstart.toml --random 9 --vary gamma1=log:1e-3:1
      mixjax sweep configs/quickstart.toml --vary gamma1=0.1,1 --dry-run

    KEY is a field of the experiment: a number, a text, which is compiled by itself, or a vector; a nested one is dotted
    (rule.gamma1). A number that sets a shape or a number of steps cannot be varied. Axes of the config stay, unless
    they are varied here. Its own figure and claims are left out. Points one by one are written --set
    'sweep.points.KEY=[...]'.

    `mixjax compare results/NAME_sweep --along KEY` compares the points over paired seeds.
    """
    from mixjax.cli.sweeping import run_sweep

    settings = {"seeds": seeds, "first_seed": first_seed, "chunk": chunk, "random.num": random}
    run_sweep(
        config,
        vary=vary or (),
        random=random is not None,
        settings={key: value for key, value in settings.items() if value is not None},
        overrides=set_ or (),
        out=out,
        dry_run=dry_run,
        profile=profile,
        trackers=track or (),
    )
