"""Defines the command ``mixjax list``. Packages that are slow to import are imported when the command runs."""

import inspect
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from mixjax.runner.texts import aligned

__all__ = ["list_"]


def list_() -> None:
    """List experiments, weight rules and samplers, with a line each.

    Experiments are the configs under ./configs. The first comment of a config describes it.

    \b
    Example:
      mixjax list
    """
    from mixjax import rules, samplers

    configs = list(_configs(Path("configs")))
    _show("Experiments: mixjax run FILE", configs, otherwise="none: no *.toml under ./configs")
    _show("Rules: mixjax.rules.NAME", [(name, _first_line(rule)) for name, rule in rules.RULES.items()])
    # The classes are left out: the types that the functions return, and HostSampler, which does in NumPy what hardness
    # and proportional do in JAX.
    public = [(name, getattr(samplers, name)) for name in samplers.__all__]
    functions = [(name, _first_line(value)) for name, value in public if inspect.isfunction(value)]
    _show("Samplers: mixjax.samplers.NAME", functions)


def _configs(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the path of each config under a folder, and its first comment with the name of its experiment."""
    for path in sorted(folder.rglob("*.toml")):
        # A broken config must not keep the others from being listed.
        text = path.read_text(encoding="utf-8", errors="replace")
        comment = next((line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")), "")
        try:
            experiment = tomllib.loads(text).get("experiment", "names no experiment")
        except tomllib.TOMLDecodeError as error:
            experiment = f"not valid TOML: {error}"
        yield path.as_posix(), f"{comment} ({experiment})" if comment else f"({experiment})"


def _first_line(thing: Any) -> str:
    """Returns the first line of a docstring, without the marks of reST, which mean nothing in a terminal."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0]
    return re.sub(r":\w+:`([^`]*)`|`+([^`]*)`+", r"\1\2", line)


def _show(title: str, rows: Sequence[tuple[str, str]], otherwise: str = "none") -> None:
    typer.echo(title)
    for line in aligned(rows) or [otherwise]:
        typer.echo(f"  {line}")
    typer.echo()
