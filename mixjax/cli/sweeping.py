"""Turns the options of ``mixjax sweep`` into a config, and runs it."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixjax.cli.running import run_config, run_mistakes_reported
from mixjax.runner import configs
from mixjax.runner.configs.sweep import SWEEP_KEYS
from mixjax.sweeps.devices import use_all_cores

__all__ = ["run_sweep"]


def run_sweep(
    config: Path,
    *,
    vary: Sequence[str],
    random: bool,
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    out: Path | None,
    dry_run: bool,
    profile: bool,
    trackers: Sequence[str],
) -> None:
    """Runs a sweep over numbers of a config.

    Args:
        config: the file.
        vary: each ``--vary``, as the user typed it.
        random: whether points are drawn.
        settings: key of the table ``[sweep]`` -> value.
        overrides: each ``--set``, as the user typed it.
        out: the folder to write; None for ``results/NAME_sweep``.
        dry_run: only say what would be run.
        profile: trace the run.
        trackers: names of trackers.

    Raises:
        typer.Exit: a mistake in one of these, with code 2, or in the figure, with code 1.
    """
    use_all_cores()
    with run_mistakes_reported(dry_run=dry_run):
        varied = _overrides_of(vary, random=random)
        # After --set, so that an axis given here replaces the config's.
        texts = [*overrides, *varied.values(), *(f"sweep.{key}={value}" for key, value in settings.items())]
        loaded = _load(config, texts, varied)
        if not (loaded.sweep.axes or loaded.sweep.points):
            raise configs.ConfigError("nothing varies: give --vary KEY=VALUES, such as --vary gamma1=log:1e-3:1:7")
        function = _Exploration(loaded.function)
        loaded = dataclasses.replace(loaded, name=f"{loaded.name}_sweep", function=function, command="sweep")
        run_config(loaded, out=out, dry_run=dry_run, profile=profile, trackers=trackers)


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
