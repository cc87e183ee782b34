"""The command `mixjax`: run configs, sweep over them, compare and show results, list what there is, fetch data.

Progress and errors go to stderr, results to stdout. Exit codes: 0 done; 1 the experiment's code failed; 2 a mistake in
the command, the config or the data at hand; 130 Ctrl-C.
"""

from __future__ import annotations

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

    from mixjax.cli.terminal import aligned, reported


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        argv: the arguments after `mixjax`; default those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    if _MISSING:
        sys.exit(f"mixjax: the command needs {', '.join(_MISSING)}: pip install 'mixjax[experiments]'")
    from mixjax.cli import compare, run, show

    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files: no display needed
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_top)
    app.command("run")(run.run)
    app.command("sweep")(run.sweep)
    app.command("list")(list_)
    app.command("data")(data)
    app.command("compare")(compare.compare)
    app.command("show")(show.show)
    try:
        app(args=argv, prog_name="mixjax")
    except SystemExit as exit_:
        if argv is None and exit_.code == 130:  # Ctrl-C: JAX's threads may be at work, and an orderly end could crash
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


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
      mixjax sweep configs/quickstart.toml --vary gamma1=log:1e-3:1:5 --seeds 20
      mixjax show results/quickstart               what a result holds
      mixjax compare results/quickstart --metric accuracy --better higher
    """


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
    with reported(ValueError, RuntimeError, OSError, ImportError):
        from mixjax.data import fetch

        typer.echo(fetch(name, source=source, folder=folder))


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
    for line in aligned(list(rows)) or [otherwise]:
        typer.echo(f"  {line}")
    typer.echo()
