"""The commands `mixjax run` and `mixjax sweep`; what it takes a while to import is imported when they run."""

import contextlib
import dataclasses
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from mixjax.cli.terminal import aligned, reported
from mixjax.runner import configs
from mixjax.sweeps import checkpoints
from mixjax.sweeps.devices import use_all_cores

_Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A TOML file; `mixjax list` shows those under ./configs.")
]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config; may be given several times."),
]
_DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be run: runs, chunks, memory, operations, time; write nothing."),
]
_Profile = Annotated[
    bool, typer.Option("--profile", help="Trace the run into DIR.profile, for TensorBoard's or Perfetto's viewer.")
]
_Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Also tell tensorboard (which reads DIR.tensorboard), wandb or trackio how the runs go; may be given "
        "several times.",
    ),
]
_TRACKERS = ("tensorboard", "wandb", "trackio")
_MISTAKES = configs.ConfigError, checkpoints.ChangedError, MemoryError, OSError, ImportError


def run(
    config: _Config,
    set_: _Set = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME of the config]")
    ] = None,
    dry_run: _DryRun = False,
    profile: _Profile = False,
    track: _Track = None,
) -> None:
    """Run a config: its sweeps, then its figure, its claims and a report.

    \b
    Examples:
      mixjax run configs/quickstart.toml
      mixjax run configs/quickstart.toml --set sweep.seeds=100 --set num_steps=20
      mixjax run configs/quickstart.toml --set 'sweep.gamma=[0.01, 0.1]' --out results/grid
      mixjax run configs/quickstart.toml --dry-run
      mixjax run results/quickstart/config.toml --out results/again

    KEY is a field of the experiment, sweep.KEY, or run.0.KEY for the first [[run]]; VALUE is TOML, or else a string.

    \b
    The folder holds
      report.md       claims with value, standard error and verdict; figure, timing; read this first
      figure.png      the figure
      claims.json     the claims as data
      metrics.npz     the arrays, described by metrics.json; in Python: mixjax.runner.results.read("results/quickstart")
      config.toml     the resolved config: running it reproduces the result
      progress.jsonl  how far the sweeps were and the mean of each metric, after each call of the program

    An earlier result stays until the new one is complete. A run that is stopped or killed leaves DIR.chunks: the same
    command goes on from there, and repeats what was not on disk: the chunk at work, and of short chunks those of the
    last second or so. Runs are split over all devices; a CPU counts as one for each core, unless
    JAX_NUM_CPU_DEVICES says otherwise. --dry-run compiles each program and times one call of it.
    """
    use_all_cores()
    with reported(*_MISTAKES, interrupted="the same command goes on where this one stopped"):
        _run(configs.load(config, set_ or ()), out, dry_run, profile, track or ())


def sweep(
    config: _Config,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="An axis: KEY=0.1,0.2,0.3 or KEY=SCALE:START:STOP:NUM, with SCALE linear or log; several make a grid. "
            "With --random: what is drawn from, KEY=0.1,0.2,0.3 or KEY=SCALE:START:STOP, SCALE also integer.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Seeds of each point. [default: the config's]")] = None,
    first_seed: Annotated[
        int | None, typer.Option(metavar="N", help="The first of them. [default: the config's]")
    ] = None,
    random: Annotated[
        int | None, typer.Option(metavar="N", help="N random points in place of a grid, the same ones every time.")
    ] = None,
    chunk: Annotated[
        str | None, typer.Option(metavar="N", help="Runs a call, or auto. [default: the config's]")
    ] = None,
    set_: _Set = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME_sweep of the config]"),
    ] = None,
    dry_run: _DryRun = False,
    profile: _Profile = False,
    track: _Track = None,
) -> None:
    """Sweep over numbers of a config: every metric against what is varied, in place of its own figure and claims.

    \b
    Examples:
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:7 --seeds 20
      mixjax sweep configs/quickstart.toml --vary gamma1=0.01,0.1 --vary gamma2=0.1,0.5 --seeds 20
      mixjax sweep configs/quickstart.toml --random 30 --vary gamma1=log:1e-3:1 --vary gamma2=linear:0:1
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:7 --seeds 100 --dry-run

    KEY is a field of the experiment that holds one number, dotted where it is nested (rule.gamma1); not one that sets a
    shape or a number of steps, such as num_steps, since all points and seeds are runs of one compiled program. The axes
    of the config stay, unless they are varied here. Points one by one: --set 'sweep.points.KEY=[...]', a column for
    each KEY. `mixjax compare results/NAME_sweep --along KEY` compares the points over paired seeds.
    """
    use_all_cores()
    with reported(*_MISTAKES, interrupted="the same command goes on where this one stopped"):
        varied = {text: _override(text, random is not None) for text in vary or ()}
        keys = [text.partition("=")[0] for text in vary or ()]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise configs.ConfigError(f"--vary {twice[0]}: given twice; give all of its values at once")
        texts = [*(set_ or ()), *varied.values()]
        for key, value in (("seeds", seeds), ("first_seed", first_seed), ("chunk", chunk), ("random.num", random)):
            texts += [] if value is None else [f"sweep.{key}={value}"]
        try:
            loaded = configs.load(config, texts)
        except configs.ConfigError as error:  # in the words of the one who typed them
            message = str(error)
            for text, override in varied.items():
                message = message.replace(f"--set {override}", f"--vary {text}")
            raise configs.ConfigError(message) from error
        if not (loaded.sweep.axes or loaded.sweep.points):
            raise configs.ConfigError("nothing varies: give --vary KEY=VALUES, such as --vary gamma1=log:1e-3:1:7")
        function = _Exploration(loaded.function)
        loaded = dataclasses.replace(loaded, name=f"{loaded.name}_sweep", function=function, command="sweep")
        _run(loaded, out, dry_run, profile, track or ())


@dataclasses.dataclass(frozen=True)
class _Exploration:
    """An experiment's function whose figure shows any sweep, and which claims nothing."""

    function: object

    def __call__(self, values):
        from mixjax.runner import experiment
        from mixjax.runner.figures import sweep_figure

        made = self.function(values)
        if not isinstance(made, experiment.Experiment):
            return made
        return dataclasses.replace(made, figure=sweep_figure, claims=lambda results: [])


def _override(text: str, random: bool) -> str:
    """`--vary KEY=VALUES` as a `--set`."""
    key, equals, values = text.partition("=")
    usage = f"--vary {text}: write KEY=0.1,0.2 or KEY=log:1e-4:1:20 (with --random KEY=log:1e-4:1)"
    if not (equals and key and values):
        raise configs.ConfigError(usage)
    prefix = f"sweep.{'random.' if random else ''}{key}"
    if ":" not in values:
        return f"{prefix}=[{values}]"
    scale, *bounds = values.split(":")
    scales = ("linear", "log", "integer") if random else ("linear", "log")
    if len(bounds) != (2 if random else 3):
        raise configs.ConfigError(usage)
    if scale not in scales:
        raise configs.ConfigError(f"--vary {text}: unknown scale {scale!r}; known: {', '.join(scales)}")
    try:
        numbers = [float(bounds[0]), float(bounds[1]), *map(int, bounds[2:])]
    except ValueError as error:
        raise configs.ConfigError(f"{usage}; {error}") from None
    pairs = zip(("start", "stop", "num"), numbers, strict=False)
    inner = ", ".join(f"{name} = {number}" for name, number in pairs)
    return f'{prefix}={{{inner}, scale = "{scale}"}}'


def _run(config: configs.Config, out: Path | None, dry_run: bool, profile: bool, trackers: Sequence[str]) -> None:
    from mixjax.runner import experiment, results

    if unknown := [name for name in trackers if name not in _TRACKERS]:
        raise configs.ConfigError(f"--track {unknown[0]}: unknown tracker; known: {', '.join(_TRACKERS)}")
    target = results.check_out(Path("results", config.name) if out is None else out)
    if dry_run:
        _show_plans(experiment.plans(config))
        if (chunks := target.with_name(f"{target.name}.chunks")).exists():
            typer.echo(f"{_shown(chunks)} has chunks of an earlier run: if it was the same, that many runs less")
        return
    trace = jax.profiler.trace(target.with_name(f"{target.name}.profile")) if profile else contextlib.nullcontext()
    try:
        with _bars() as progress, trace, _trackers(trackers, target, config) as track:
            path = experiment.run(config, out=target, callback=progress, track=track)
    except experiment.ReportError as error:
        typer.echo("\n".join([*error.failures.values(), f"mixjax: {error}"]), err=True)
        raise typer.Exit(1) from error
    if jax.process_index() == 0:
        _show(path)
        if profile:
            typer.echo(f"{_shown(target)}.profile")


@contextlib.contextmanager
def _bars() -> Iterator:
    """A progress bar a run, each closed when the next one starts."""
    from tqdm import tqdm

    bars: list[tqdm] = []

    def progress(name: str, done: float, total: int) -> None:
        if not bars or bars[-1].desc != name:
            bars.append(tqdm(total=total, desc=name, unit="run", disable=None))
            bars[-1].desc = name
        bars[-1].update(done - bars[-1].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()


@contextlib.contextmanager
def _trackers(names: Sequence[str], target: Path, config: configs.Config) -> Iterator[Callable | None]:
    """All trackers asked for as one, on the first host."""
    from mixjax.runner import tracking

    with contextlib.ExitStack() as stack:
        tracks = []
        for name in () if jax.process_index() else names:
            if name == "tensorboard":
                tracker = tracking.tensorboard(target.with_name(f"{target.name}.tensorboard"))
            else:
                project, resolved = os.environ.get("WANDB_PROJECT", "mixjax"), tomllib.loads(config.to_toml())
                tracker = tracking.wandb(name, project=project, name=target.name, config=resolved)
            tracks.append(stack.enter_context(tracker))
        yield tracking.together(*tracks) if tracks else None


def _show_plans(plans: Mapping[str, Any]) -> None:
    rows = [("run", "runs", "chunks", "memory of a device", "operations a run", "compilation", "time")]
    for name, plan in plans.items():
        rows.append(
            (
                name,
                str(plan.num_runs),
                f"{plan.num_chunks} of {plan.chunk} on {plan.num_devices} devices",
                f"{plan.bytes_per_device / 1e9:.3g} GB of {plan.free_bytes / 1e9:.3g} GB free",
                f"{plan.flops / 1e9:.3g} GFLOP",
                f"{plan.compile_seconds:.3g} s",
                f"{plan.run_seconds:.3g} s",
            )
        )
    for line in aligned(rows):
        typer.echo(line)
    seconds = sum(plan.compile_seconds + plan.run_seconds for plan in plans.values())
    typer.echo(f"\n{sum(plan.num_runs for plan in plans.values())} runs in about {seconds:.3g} s; nothing was written")


def _show(path: Path) -> None:
    """Prints the claims and the files of a result."""
    from mixjax.runner.claims import claims_table
    from mixjax.runner.results import FILES

    rows = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    for line in aligned([("claim", "value", "holds")] * bool(rows) + [(t[0], t[2], t[1]) for t in claims_table(rows)]):
        typer.echo(line)
    for name in FILES:
        typer.echo(_shown(path) / name)


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
