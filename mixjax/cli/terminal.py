"""Reports mistakes, Ctrl-C and signals by a line and an exit code, and checks files to be written."""

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import typer

from mixjax.files import local_path, make_folder
from mixjax.stopping import Preempted

__all__ = ["Mistake", "output_file", "refusals_placed", "reported"]

# What a library or an experiment raises where a value of the config does not fit. Other errors are bugs.
_REFUSALS = (ValueError, TypeError, OverflowError, LookupError, AssertionError)


class Mistake(ValueError):
    """Says that an option does not fit the results at hand."""


@contextlib.contextmanager
def reported(*mistakes: type[Exception], interrupted: str = "nothing was written") -> Iterator[None]:
    """Turns the user's mistakes into a message and exit code 2, and Ctrl-C into a message and exit code 130.

    Where a scheduler's signal has stopped a run, the code is 128 plus the signal's number.

    Args:
        *mistakes: exceptions that a mistake of the user raises; others pass through, with their traceback.
        interrupted: what the message on Ctrl-C says about the state that the command leaves.

    Yields:
        Nothing; run the command inside the ``with`` block.

    Raises:
        typer.Exit: with the exit code.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"mixjax: interrupted; {interrupted}", err=True)
        raise typer.Exit(130) from None
    except Preempted as stop:
        typer.echo(f"mixjax: {stop.number.name}; {interrupted}", err=True)
        raise typer.Exit(128 + stop.number) from None
    except BrokenPipeError:
        # This is an OSError, but not a mistake: a reader such as `| head` has seen enough.
        raise
    except mistakes as error:
        text = " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        typer.echo(f"mixjax: {text}", err=True)
        raise typer.Exit(2) from None


def output_file(option: str, path: Path, suffixes: tuple[str, ...]) -> Path:
    """Checks a file that a command will write, before anything is computed, and makes its folder.

    Args:
        option: the option that names the file, for messages.
        path: the file.
        suffixes: those that it may have.

    Returns:
        The path.

    Raises:
        Mistake: another suffix, a folder, or a file that cannot be written.
    """
    try:
        path = local_path(option, path)
    except ValueError as error:
        raise Mistake(error) from error
    if path.suffix not in suffixes:
        raise Mistake(f"{option} {path}: must end in {', '.join(suffixes)}")
    if path.is_dir():
        raise Mistake(f"{option} {path}: is a folder")
    try:
        make_folder(option, path.parent)
    except OSError as error:
        raise Mistake(error) from error
    return path


@contextlib.contextmanager
def refusals_placed() -> Iterator[None]:
    """Turns the refusal of a value, by mixjax, JAX or an experiment, into a :class:`Mistake` that names the line.

    Such an error mostly means that a number of the config does not go with the others: a negative size, a share above
    1. With the environment variable ``MIXJAX_TRACEBACK`` set, the error stays as it is, for who writes an experiment.

    Yields:
        Nothing; run what may refuse a value inside the ``with`` block.

    Raises:
        Mistake: the refusal in one line.
    """
    try:
        yield
    except _REFUSALS as error:
        # Imported here, since commands that read no config run without the packages that configs need.
        from mixjax.runner.configs import ConfigError
        from mixjax.sweeps.checkpoints import ChangedError

        # A message that is meant for the user says where the mistake is.
        if isinstance(error, (Mistake, ConfigError, ChangedError)) or os.environ.get("MIXJAX_TRACEBACK"):
            raise
        # The last line that belongs to none of the libraries is where the experiment passed the value on.
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not _is_library(frame.filename)]
        place = f"{os.path.relpath(own[-1].filename)}, line {own[-1].lineno}; " if own else ""
        text = " ".join(str(error).split())
        if isinstance(error, (LookupError, AssertionError)) or not text:
            text = f"{type(error).__name__}: {text}".rstrip(": ")
        raise Mistake(f"{text} ({place}set MIXJAX_TRACEBACK=1 for the traceback)") from error


def _is_library(filename: str) -> bool:
    mixjax = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    standard = os.path.dirname(os.__file__)
    return filename.startswith((mixjax, standard, "<")) or "site-packages" in filename
