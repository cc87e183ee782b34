"""Defines the command ``mixjax run``. Packages that are slow to import are imported when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.options import ConfigArgument, DryRunOption, ProfileOption, SetOption, TrackOption

__all__ = ["run"]


def run(
    config: ConfigArgument,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME]")
    ] = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    track: TrackOption = None,
) -> None:
    """Run a config: a figure, claims and a report.

    \b
    Examples:
      mixjax run configs/quickstart.toml
      mixjax run configs/quickstart.toml --set sweep.seeds=100 --out results/long
      mixjax run configs/quickstart.toml --set 'sweep.gamma1=[0.01, 0.1]' \\
          --set num_steps=20 --out results/grid
      mixjax run configs/quickstart.toml --dry-run
      mixjax run results/quickstart/config.toml --out results/again

    KEY is a field of the experiment, or sweep.KEY for the table [sweep], or run.0.KEY for the first table [[run]].
    VALUE is TOML; anything else is taken as a string.

    \b
    The folder that is written holds report.html, to be read first (report.md is
    the same as text), figure.png, claims.json, config.toml, from which the same
    can be run again, and metrics.npz; in Python:
      mixjax.runner.results.read("results/quickstart")

    Before the first run, figure and claims are tried on made-up results, so that what would fail at the end is told. A
    run that is stopped leaves the folder DIR.chunks, from which the same command goes on. With MIXJAX_TRACEBACK=1 in
    the environment, a value that is refused shows the whole traceback.
    """
    from mixjax.cli.running import run_config, run_mistakes_reported
    from mixjax.runner import configs
    from mixjax.sweeps.devices import use_all_cores

    use_all_cores()
    with run_mistakes_reported(dry_run=dry_run):
        loaded = configs.load(config, set_ or ())
        run_config(loaded, out=out, dry_run=dry_run, profile=profile, trackers=track or ())
