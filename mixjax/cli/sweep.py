"""Defines the command ``mixjax sweep``. Packages that are slow to import are imported when the command runs."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mixjax.cli.running import (
    ConfigArgument,
    DryRunOption,
    ProfileOption,
    SetOption,
    TrackOption,
    run_config,
    run_mistakes_reported,
)
from mixjax.runner import configs
from mixjax.runner.configs.sweep import SWEEP_KEYS
from mixjax.sweeps.devices import use_all_cores

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
    use_all_cores()
    with run_mistakes_reported():
        varied = _overrides_of(vary or (), random=random is not None)
        # After --set, so that an axis given here replaces the config's.
        texts = [*(set_ or ()), *varied.values()]
        for key, value in (("seeds", seeds), ("first_seed", first_seed), ("chunk", chunk), ("random.num", random)):
            if value is not None:
                texts.append(f"sweep.{key}={value}")
        loaded = _load(config, texts, varied)
        if not (loaded.sweep.axes or loaded.sweep.points):
            raise configs.ConfigError("nothing varies: give --vary KEY=VALUES, such as --vary gamma1=log:1e-3:1:7")
        function = _Exploration(loaded.function)
        loaded = dataclasses.replace(loaded, name=f"{loaded.name}_sweep", function=function, command="sweep")
        run_config(loaded, out=out, dry_run=dry_run, profile=profile, trackers=track or ())


@dataclasses.dataclass(frozen=True)
class _Exploration:
    """Wraps an experiment's function: the experiment gets a figure that shows any sweep, and no claims."""

    function: Callable[[Any], Any]

    def __call__(self, values: Any) -> Any:
        from mixjax.runner import experiment
        from mixjax.runner.figures import sweep_figure

        made = self.function(values)
        if not isinstance(made, experiment.Experiment):
            # The runner says what is wrong with it.
            return made
        return dataclasses.replace(made, figure=sweep_figure, claims=lambda results: [])


def _load(config: Path, texts: Sequence[str], varied: dict[str, str]) -> configs.Config:
    """Loads the config; a message about an override shows the ``--vary`` that the user typed."""
    try:
        return configs.load(config, texts)
    except configs.ConfigError as error:
        message = str(error)
        for text, override in varied.items():
            message = message.replace(f"--set {override}", f"--vary {text}")
        raise configs.ConfigError(message) from error


def _overrides_of(vary: Sequence[str], *, random: bool) -> dict[str, str]:
    """Returns the override "KEY=VALUE" that each ``--vary`` stands for."""
    keys = [text.partition("=")[0] for text in vary]
    varied = {text: _override_of(text, random) for text in vary}
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise configs.ConfigError(f"--vary {twice[0]}: given twice; give all of its values at once")
    return varied


def _override_of(text: str, random: bool) -> str:
    key, equals, values = text.partition("=")
    usage = f"--vary {text}: write KEY=0.1,0.2 or KEY=log:1e-4:1:20 (with --random KEY=log:1e-4:1)"
    if not (equals and key and values):
        raise configs.ConfigError(usage)
    if key.startswith("sweep."):
        raise configs.ConfigError(f"--vary {text}: KEY is a field of the experiment; leave out 'sweep.'")
    if key in SWEEP_KEYS:
        raise configs.ConfigError(f"--vary {text}: {key} is the sweep's; write --set sweep.{key}=VALUE")
    prefix = f"sweep.random.{key}" if random else f"sweep.{key}"
    if ":" not in values or values[0] in "'\"[":
        return f"{prefix}={_as_toml_list(values)}"
    scale, *bounds = values.split(":")
    scales = ("linear", "log", "integer") if random else ("linear", "log")
    if len(bounds) != (2 if random else 3):
        raise configs.ConfigError(usage)
    if scale not in scales:
        raise configs.ConfigError(f"--vary {text}: unknown scale {scale!r}; known: {', '.join(scales)}")
    try:
        start, stop = float(bounds[0]), float(bounds[1])
        num = None if random else int(bounds[2])
    except ValueError as error:
        raise configs.ConfigError(f"{usage}; {error}") from None
    inner = f"start = {start}, stop = {stop}" + ("" if num is None else f", num = {num}")
    return f'{prefix}={{{inner}, scale = "{scale}"}}'


def _as_toml_list(values: str) -> str:
    """Writes comma-separated values as a list of TOML: numbers, vectors in brackets, texts with or without quotes."""
    try:
        tomllib.loads(f"values = [{values}]")
    except (ValueError, RecursionError):
        # JSON's strings are TOML's too.
        return json.dumps([part.strip() for part in values.split(",")])
    return f"[{values}]"
