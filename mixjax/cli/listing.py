"""Defines the command ``mixjax list``. Packages that are slow to import are imported when the command runs."""

import inspect
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

__all__ = ["hanging", "list_"]


def list_() -> None:
    """List experiments, weight rules and samplers, with a line each.

    Experiments are the configs under ./configs, and those that come with mixjax. The first comment of a config
    describes it.

    \b
    Example:
      mixjax list
    """
    from mixjax import rules, samplers
    from mixjax.runner.configs.locating import shipped_folder, shipped_name

    own, shipped = Path("configs"), shipped_folder() / "configs"
    rows = [(path.as_posix(), text) for path, text in _configs(own)]
    _show("Experiments: mixjax run FILE", rows, otherwise="none: no *.toml under ./configs")
    # In a checkout of mixjax they are the same.
    if own.resolve() != shipped:
        rows = [(shipped_name(path) or "", text) for path, text in _configs(shipped)]
        _show("Experiments that come with mixjax: mixjax run NAME", rows)
    _show("Rules: mixjax.rules.NAME", [(name, _first_line(rule)) for name, rule in rules.RULES.items()])
    # Of the classes one is a sampler, and the others are the types that the functions return.
    public = [(name, getattr(samplers, name)) for name in samplers.__all__]
    shown = [(name, _first_line(value)) for name, value in public if inspect.isfunction(value) or name == "HostSampler"]
    _show("Samplers: mixjax.samplers.NAME", shown)


def _configs(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields the path of each config under a folder, and its first comment with the name of its experiment."""
    for path in sorted(folder.rglob("*.toml")):
        comment = ""
        # A broken config must not keep the others from being listed.
        try:
            text = path.read_text(encoding="utf-8")
            comment = next((line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")), "")
            experiment = tomllib.loads(text).get("experiment", "names no experiment")
        except OSError as error:
            experiment = f"cannot be read: {error.strerror}"
        # No TOML, no UTF-8, or an integer or a nesting beyond Python's limits.
        except (ValueError, RecursionError) as error:
            experiment = f"not valid TOML: {error}"
        yield path, " ".join(f"{comment} ({experiment})".split())


def _first_line(thing: Any) -> str:
    """Returns the first line of a docstring, without the marks of reST, which mean nothing in a terminal."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0]
    return re.sub(r":\w+:`([^`]*)`|`+([^`]*)`+", r"\1\2", line)


def _show(title: str, rows: Sequence[tuple[str, str]], otherwise: str = "none") -> None:
    typer.echo(title)
    # Where somebody reads along, a long description goes on below itself; a file or a pipe gets it in one line.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in hanging(rows, width) or [otherwise]:
        typer.echo(f"  {line}")
    typer.echo()


def hanging(rows: Sequence[tuple[str, str]], width: int | None) -> list[str]:
    """Formats names and descriptions in two columns; a description that is too long goes on in the lines below.

    Args:
        rows: (name, description).
        width: of the terminal; None for lines of any length.

    Returns:
        The lines, two letters narrower than the terminal at least, for a margin.
    """
    # Not at the top: it imports NumPy, and whoever asks for help should not wait for that.
    from mixjax.runner.texts import aligned

    if width is None:
        return aligned(rows)
    # Very long names leave no room beside them: then the description stands below its name.
    column = min(max((len(name) for name, _ in rows), default=0) + 2, max(width // 2, 8))
    lines = []
    for name, text in rows:
        pieces = textwrap.wrap(text, max(width - column - 3, 20)) or [""]
        beside = len(name) + 2 <= column
        lines += [f"{name.ljust(column)}{pieces[0]}".rstrip()] if beside else [name, " " * column + pieces[0]]
        lines += [" " * column + piece for piece in pieces[1:]]
    return lines
