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
        Path | None, typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME of the config]")
    ] = None,
    dry_run: DryRunOption = False,
    profile: ProfileOption = False,
    track: TrackOption = None,
) -> None:
    """Run a config: a figure, claims and a report.

    \b
    Examples:
      mixjax run configs/quickstart.toml
      mixjax run configs/quickstart.toml --set sweep.seeds=100 --set num_steps=20 --out results/short
      mixjax run configs/quickstart.toml --set 'sweep.gamma1=[0.01, 0.1]' --out results/grid
      mixjax run configs/quickstart.toml --dry-run
      mixjax run results/quickstart/config.toml --out results/again

    In --set KEY=VALUE, KEY is a field of the experiment, or sweep.KEY for the table [sweep], or run.0.KEY for the first
    table [[run]]. VALUE is TOML; anything else is taken as a string.

    \b
    The folder that is written holds
      report.html     read this first: claims with intervals and verdicts, figure, weights over time, settings, timing
      report.md       the same as text, without curves
      figure.png      the figure
      claims.json     the claims as data
      metrics.npz     the arrays, described by metrics.json; in Python: mixjax.runner.results.read("results/quickstart")
      config.toml     the resolved config: running it reproduces the result
      progress.jsonl  how far the sweeps were and the mean of each metric, after each call of the program

    An earlier result stays until the new one is complete. A run that is stopped or killed leaves the folder DIR.chunks,
    from which the same command goes on. It repeats only what was not on disk yet: the chunk that was being computed, or
    the chunks of about the last second where they are short.

    Runs are split over all devices. A CPU counts as one device for each core, unless JAX_NUM_CPU_DEVICES says
    otherwise. --dry-run compiles each program and times one call of it. The environment variable MIXJAX_TRACEBACK=1
    shows the whole traceback where the experiment or a library refuses a value.
    """
    from mixjax.cli.running import run_config, run_mistakes_reported
    from mixjax.runner import configs
    from mixjax.sweeps.devices import use_all_cores

    use_all_cores()
    with run_mistakes_reported():
        loaded = configs.load(config, set_ or ())
        run_config(loaded, out=out, dry_run=dry_run, profile=profile, trackers=track or ())
