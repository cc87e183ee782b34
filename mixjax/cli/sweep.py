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
            help="An axis: KEY=0.1,0.2,0.3 or KEY=SCALE:START:STOP:NUM, with SCALE linear or log; KEY=erma,fgls for a "
            "field of texts, KEY=[0.5,0.5],[0.9,0.1] for one of vectors. Several axes make a grid. With --random, the "
            "values to draw from: KEY=0.1,0.2,0.3 or KEY=SCALE:START:STOP, where SCALE may also be integer.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Number of seeds of each point. [default: the config's]")
    ] = None,
    first_seed: Annotated[
        int | None, typer.Option(metavar="N", help="The first of these seeds. [default: the config's]")
    ] = None,
    random: Annotated[
        int | None, typer.Option(metavar="N", help="N random points in place of a grid, the same ones every time.")
    ] = None,
    chunk: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto", help="Number of runs in one call of the compiled program. [default: the config's]"
        ),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME_sweep of the config]"),
    ] = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    track: TrackOption = None,
) -> None:
    """Sweep over numbers of a config, and draw every metric.

    The figure shows every metric against what is varied. The config's own figure and claims are left out.

    \b
    Examples:
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:7 --seeds 20
      mixjax sweep configs/quickstart.toml --vary gamma1=0.01,0.1 --vary gamma2=0.1,0.5 --seeds 20
      mixjax sweep configs/quickstart.toml --random 30 --vary gamma1=log:1e-3:1 --vary gamma2=linear:0:1
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:7 --seeds 100 --dry-run

    KEY is a field of the experiment that holds a number, a list of numbers or a text; a nested field is dotted
    (rule.gamma1). Each text is compiled by itself. A number that sets a shape or a number of steps, such as num_steps,
    cannot be varied, since all points and seeds are runs of one compiled program. Axes that the config has stay, unless
    they are varied here, in a grid or at random. To give points one by one, write --set 'sweep.points.KEY=[...]', a
    column for each KEY.

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
