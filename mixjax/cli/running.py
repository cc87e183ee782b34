"""The work that ``mixjax run`` and ``mixjax sweep`` share: progress bars, trackers, and what they print."""

import contextlib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import typer

from mixjax.cli.terminal import Mistake, refusals_placed, reported
from mixjax.runner import configs
from mixjax.runner.experiment import HostDryRun
from mixjax.runner.rehearsal import RehearsalError
from mixjax.runner.texts import aligned, claim_texts, counted
from mixjax.stopping import preemptible
from mixjax.sweeps import DryRun, checkpoints

__all__ = ["run_config", "run_mistakes_reported"]

_TRACKERS = ("tensorboard", "wandb", "trackio")


@contextlib.contextmanager
def run_mistakes_reported(*, dry_run: bool = False) -> Iterator[None]:
    """Reports mistakes in a config, or in the data or packages that it needs, in one line.

    Args:
        dry_run: nothing is saved, so a signal need not wait for it, and ends the process at once.

    Yields:
        Nothing; read and run the config inside the ``with`` block.
    """
    mistakes = (
        configs.ConfigError,
        checkpoints.ChangedError,
        RehearsalError,
        Mistake,
        MemoryError,
        OSError,
        ImportError,
    )
    with reported(*mistakes, interrupted="the same command goes on where this one stopped"):
        try:
            with contextlib.nullcontext() if dry_run else preemptible(), refusals_placed():
                yield
        except jax.errors.JaxRuntimeError as error:
            # The compiler and the devices say so where arrays are too large.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(" ".join(str(error).split())) from error


def run_config(
    config: configs.Config, *, out: Path | None, dry_run: bool, profile: bool, trackers: Sequence[str]
) -> None:
    """Runs a config and prints its claims and files, or prints what it would run.

    Args:
        config: from :func:`mixjax.runner.configs.load`.
        out: the folder to write; None for ``results/NAME``.
        dry_run: only say what would be run.
        profile: trace the run into ``<out>.profile``.
        trackers: names among "tensorboard", "wandb" and "trackio".

    Raises:
        ConfigError: an unknown tracker, or ``out`` holds something that is no result.
        typer.Exit: with code 1, if the figure, the claims or the summary failed.
    """
    from mixjax.runner import experiment, results

    unknown = [name for name in trackers if name not in _TRACKERS]
    if unknown:
        raise configs.ConfigError(f"--track {unknown[0]}: unknown tracker; known: {', '.join(_TRACKERS)}")
    # Before anything is compiled: a mistake should cost no time.
    target = results.check_out(Path("results", config.name) if out is None else out)
    if dry_run:
        _show_dry_run(experiment.dry_run(config), target)
        chunks = target.with_name(f"{target.name}.chunks")
        if chunks.exists():
            typer.echo(
                f"{_shown(chunks)} holds chunks of an earlier run. If its config, code and data were the same, "
                "they are not computed again."
            )
        return
    trace = jax.profiler.trace(target.with_name(f"{target.name}.profile")) if profile else contextlib.nullcontext()
    try:
        with _bars() as progress, trace, _opened(trackers, target, config) as tracker:
            path = experiment.run(config, out=target, callback=progress, tracker=tracker)
    except experiment.ReportError as error:
        typer.echo("\n".join([*error.failures.values(), f"mixjax: {error}"]), err=True)
        raise typer.Exit(1) from error
    # Of several hosts the first one has written the result.
    if jax.process_index() == 0:
        _show_result(path)
        if profile:
            typer.echo(f"{_shown(target)}.profile")


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, float, int], None]]:
    """Yields a callback that draws a progress bar for each run, and closes the bars at the end."""
    from tqdm import tqdm

    bars: list[tqdm] = []

    def progress(name: str, done: float, total: int) -> None:
        if not bars or bars[-1].desc != name:
            # disable=None: no bar where stderr is no terminal.
            bars.append(tqdm(total=total, desc=name, unit="run", disable=None))
            # A disabled bar forgets its description, by which the bar of this run is known.
            bars[-1].desc = name
        bars[-1].update(done - bars[-1].n)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()


@contextlib.contextmanager
def _opened(names: Sequence[str], target: Path, config: configs.Config) -> Iterator[Callable | None]:
    """Opens all trackers asked for, and yields them as one; on hosts other than the first one, none."""
    from mixjax.runner import tracking

    with contextlib.ExitStack() as stack:
        opened = []
        for name in () if jax.process_index() else names:
            if name == "tensorboard":
                tracker = tracking.tensorboard(target.with_name(f"{target.name}.tensorboard"))
            else:
                # A project that is given explicitly overrides wandb's variable, so the variable is read here.
                project = os.environ.get("WANDB_PROJECT", "mixjax")
                # As plain values, which trackers can store.
                resolved = tomllib.loads(config.to_toml())
                tracker = tracking.wandb(name, project=project, name=target.name, config=resolved)
            opened.append(stack.enter_context(tracker))
        yield tracking.together(*opened) if opened else None


def _show_dry_run(runs: Mapping[str, DryRun | HostDryRun], target: Path) -> None:
    """Prints the size and the time of each run; of loops on the host, what would be run."""
    loops = {name: found for name, found in runs.items() if isinstance(found, HostDryRun)}
    programs = {name: found for name, found in runs.items() if isinstance(found, DryRun)}
    rows = [("[[run]]", "runs", "chunks", "memory per device", "operations per run", "compilation", "time")]
    for name, sized in programs.items():
        rows.append(
            (
                name,
                str(sized.num_runs),
                f"{sized.num_chunks} of {counted(sized.chunk, 'run')}, on {counted(sized.num_devices, 'device')}",
                f"{sized.bytes_per_device / 1e9:.3g} GB of {sized.free_bytes / 1e9:.3g} GB free",
                f"{sized.flops / 1e9:.3g} GFLOP",
                f"{sized.compile_seconds:.3g} s",
                f"{sized.run_seconds:.3g} s",
            )
        )
    for line in aligned(rows) if programs else ():
        typer.echo(line)
    if loops:
        _show_loops(loops)
    seconds = sum(sized.compile_seconds + sized.run_seconds for sized in programs.values())
    total = sum(sized.num_runs for sized in programs.values())
    if programs:
        typer.echo(f"\n{counted(total, 'run')} in about {seconds:.3g} s")
    typer.echo(f"the result would go to {_shown(target)}; nothing was written")


def _show_loops(loops: Mapping[str, HostDryRun]) -> None:
    """Prints the runs of loops on the host, and what is known of them before they run."""
    rows = [("[[run]]", "runs", "seeds", "settings")]
    for name, found in loops.items():
        settings = ", ".join(f"{key} = {json.dumps(values)}" for key, values in found.settings.items())
        first, last = found.seeds
        seeds = str(first) if first == last else f"{first} to {last}"
        rows.append((name, str(found.num_runs), seeds, settings or "-"))
    for line in aligned(rows):
        typer.echo(line)
    total = sum(found.num_runs for found in loops.values())
    if all(found.is_rehearsed for found in loops.values()):
        rehearsal = "The figure, the claims and the summary were tried on made-up results."
    else:
        rehearsal = "The figure, the claims and the summary cannot be tried before the runs."
    typer.echo(
        f"\n{counted(total, 'run')}, one after the other. Each is an ordinary loop in Python: its memory and its time "
        f"are not known before it runs. {rehearsal}"
    )


def _show_result(path: Path) -> None:
    """Prints the claims and the files of a result."""
    from mixjax.runner import results
    from mixjax.sweeps.on_host import FILES as KEPT

    claims = claim_texts(results.read_claims(path))
    if claims:
        rows = [(claim.name, claim.value, claim.holds) for claim in claims]
        for line in aligned([("claim", "value", "holds"), *rows]):
            typer.echo(line)
    kept = sorted(found.relative_to(path) for found in (path / KEPT).rglob("*") if found.is_file())
    for name in [*results.FILES, *kept]:
        typer.echo(_shown(path) / name)


def _shown(path: Path) -> Path:
    """Returns a path relative to the current folder where it is below it, and else as it is."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
