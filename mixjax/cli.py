"""The command `mixjax`: run configs, list what there is, fetch data.

Progress and errors go to stderr, results to stdout. Exit codes: 0 done; 1 the experiment's code failed; 2 a mistake in
the command, the config or the data at hand; 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import mixjax

_EXTRA = ("matplotlib", "pydantic", "scipy", "sklearn", "tomli_w", "tqdm", "typer", "xarray")
_MISSING = [name for name in _EXTRA if importlib.util.find_spec(name) is None]

if not _MISSING:
    import typer


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        argv: the arguments after `mixjax`; default those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    if _MISSING:
        sys.exit(f"mixjax: the command needs {', '.join(_MISSING)}: pip install 'mixjax[experiments]'")
    from mixjax import cli_compare, cli_show

    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files: no display needed
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_top)
    app.command("run")(run)
    app.command("list")(list_)
    app.command("data")(data)
    app.command("compare")(cli_compare.compare)
    app.command("show")(cli_show.show)
    app(args=argv, prog_name="mixjax")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mixjax {mixjax.__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train on several domains with adaptive loss and sampling weights.

    A config names an experiment and what to repeat it over; running it gives a figure, metrics and a report of claims.

    \b
    Examples:
      mixjax list                                  what can be run
      mixjax run configs/quickstart.toml           run it; results/quickstart/ holds the result
      mixjax run --help                            how to change a config from the command line
      mixjax show results/quickstart               what a result holds
      mixjax compare results/quickstart --metric accuracy --better higher
    """


def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A TOML file; `mixjax list` shows those under ./configs.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to write. [default: results/NAME of the config]")
    ] = None,
) -> None:
    """Run a config: its sweeps, then its figure, its claims and a report.

    \b
    Examples:
      mixjax run configs/quickstart.toml
      mixjax run configs/quickstart.toml --set sweep.seeds=100 --set steps=20
      mixjax run configs/quickstart.toml --set 'sweep.gamma=[0.01, 0.1]' --out results/grid
      mixjax run results/quickstart/config.toml --out results/again

    KEY is a field of the experiment, sweep.KEY, or run.0.KEY for the first [[run]]; VALUE is TOML, or else a string.

    \b
    The folder holds
      report.md     claims with value, standard error and verdict; figure, timing; read this first
      figure.png    the figure
      claims.json   the claims as data
      metrics.npz   the arrays, described by metrics.json; in Python: mixjax.results.read("results/quickstart")
      config.toml   the resolved config: running it reproduces the result

    An earlier result stays until the new one is complete. A run that is stopped or killed leaves DIR.chunks: the same
    command goes on from there.
    """
    from tqdm import tqdm

    from mixjax import checkpoints, configs, experiment

    bars: list[tqdm] = []

    def progress(name: str, done: int, total: int) -> None:
        if not bars or bars[-1].desc != name:
            bars.append(tqdm(total=total, desc=name, unit="run", disable=None))
            bars[-1].desc = name
        bars[-1].update(done - bars[-1].n)

    mistakes = configs.ConfigError, checkpoints.ChangedError, OSError, ImportError
    with _reported(*mistakes, interrupted="the same command goes on where this one stopped"):
        try:
            path = experiment.run(configs.load(config, set_ or ()), out=out, callback=progress)
        except experiment.ReportError as error:
            typer.echo("\n".join([*error.failures.values(), f"mixjax: {error}"]), err=True)
            raise typer.Exit(1) from error
        finally:
            for bar in bars:
                bar.close()
    _show(path)


def list_() -> None:
    """List experiments, weight rules and samplers, with a line each.

    Experiments are the configs under ./configs; a config's first comment describes it.

    \b
    Example:
      mixjax list
    """
    from mixjax import rules, samplers

    _section("Experiments: mixjax run FILE", _configs(Path("configs")), "none: no *.toml under ./configs")
    _section("Rules: mixjax.rules.NAME", [(name, _first_line(rule)) for name, rule in rules.RULES.items()])
    public = [(n, getattr(samplers, n)) for n in getattr(samplers, "__all__", None) or vars(samplers)]
    public = [(n, v) for n, v in public if inspect.isfunction(v) and not n.startswith("_")]
    _section("Samplers: mixjax.samplers.NAME", [(name, _first_line(sampler)) for name, sampler in public])


def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set, such as mnist or adult.")],
    folder: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="A local folder that holds the files.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="The only source to ask. [default: each in turn]")
    ] = None,
) -> None:
    """Fetch a data set into the cache, verified by checksum.

    The cache is $MIXJAX_DATA, or mixjax/ in your cache folder; a data set that is there is not fetched again.

    \b
    Examples:
      mixjax data mnist
      mixjax data mnist --from ~/Downloads/mnist
      mixjax data mnist --source openml
      mixjax data adult
      mixjax data shakespeare
      mixjax data colin27 --from /usr/share/mricron/templates
    """
    with _reported(ValueError, RuntimeError, OSError, ImportError):
        from mixjax.data import fetch

        typer.echo(fetch(name, source=source, folder=folder))


@contextlib.contextmanager
def _reported(*mistakes: type[Exception], interrupted: str = "nothing was written") -> Iterator[None]:
    """Turns the user's mistakes, and Ctrl-C, into a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"mixjax: interrupted; {interrupted}", err=True)
        raise typer.Exit(130) from None
    except mistakes as error:
        typer.echo(f"mixjax: {error}", err=True)
        raise typer.Exit(2) from None


def _show(path: Path) -> None:
    """Prints the claims and the files of a result."""
    import json

    from mixjax.claims import claims_table
    from mixjax.results import FILES

    rows = json.loads((path / "claims.json").read_text(encoding="utf-8"))
    for line in _columns([("claim", "value", "holds")] * bool(rows) + [(t[0], t[2], t[1]) for t in claims_table(rows)]):
        typer.echo(line)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    for name in FILES:
        typer.echo(shown / name)


def _configs(folder: Path) -> Iterator[tuple[str, str]]:
    """Every config under a folder, with its first comment line and its experiment."""
    for path in sorted(folder.rglob("*.toml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        comment = next((line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")), "")
        try:
            name = tomllib.loads(text).get("experiment", "names no experiment")
        except tomllib.TOMLDecodeError as error:
            name = f"not valid TOML: {error}"
        yield path.as_posix(), f"{comment} ({name})" if comment else f"({name})"


def _first_line(thing: Any) -> str:
    line = (inspect.getdoc(thing) or "").partition("\n")[0]
    return re.sub(r":\w+:`([^`]*)`|`+([^`]*)`+", r"\1\2", line)  # reStructuredText marks mean nothing in a terminal


def _section(title: str, rows: Iterable[tuple[str, str]], otherwise: str = "none") -> None:
    typer.echo(title)
    for line in _columns(list(rows)) or [otherwise]:
        typer.echo(f"  {line}")
    typer.echo()


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
