"""Defines the command ``mixjax new``. Packages that are slow to import are imported when the command runs."""

import importlib.resources
import importlib.util
import keyword
import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Annotated

import typer

from mixjax.cli.terminal import Mistake, reported
from mixjax.files import local_path, make_folder

__all__ = ["new"]

_OWN_NAME = "noisy_domains"
"""The name of the project in the files that are copied."""

_CONFIGS = "configs"


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="NAME", help="The folder to make. Its module and its config have the same name.")
    ],
) -> None:
    """Write a small project of your own, which runs at once.

    \b
    Example:
      mixjax new my_domains

    \b
    The folder holds
      my_domains.py              an experiment: settings, training, a claim
      configs/my_domains.toml    what to run; `mixjax list` shows it
      test_my_domains.py         its tests, for pytest
      README.md                  commands to try, and what to change first
      pyproject.toml             marks the project's root

    Nothing that is there is replaced.
    """
    with reported(Mistake, OSError):
        folder, module = _checked(folder)
        for path in _write(folder, module):
            typer.echo(path)
        # A shell would take a name that begins with "-" for options of cd.
        place = f"./{folder}" if str(folder).startswith("-") else str(folder)
        typer.echo(f"next: cd {shlex.quote(place)} && mixjax run {_CONFIGS}/{module}.toml")


def _checked(folder: Path) -> tuple[Path, str]:
    """Returns a project's folder and the name of its module, that of the folder with _ for -.

    Raises:
        Mistake: the folder holds something, or its name cannot be that of a module.
    """
    try:
        folder = local_path("NAME", folder)
    except ValueError as error:
        raise Mistake(error) from error
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(f"{folder}: is there already and not empty; choose another name")
    name = folder.absolute().name.replace("-", "_")
    # Python reads the letters of names in their plain form: a ligature could not be imported.
    if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
        raise Mistake(f"NAME must be letters, digits and _, and not begin with a digit, got {folder.name!r}")
    # A module of the project would hide an installed one, or be hidden by it.
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise Mistake(f"NAME: {name} is the name of a module that can be imported already; choose another name")
    return folder, name


def _write(folder: Path, module: str) -> list[Path]:
    """Writes the files of a project, and returns their paths."""
    make_folder("NAME", folder / _CONFIGS)
    written = []
    for source in importlib.resources.files("mixjax.cli").joinpath("project").iterdir():
        text = source.read_text(encoding="utf-8").replace(_OWN_NAME, module)
        text = text.replace(_OWN_NAME.replace("_", "-"), module.replace("_", "-"))
        name = source.name.removesuffix(".txt").replace(_OWN_NAME, module)
        path = folder / _CONFIGS / name if name == f"{module}.toml" else folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return sorted(written)
