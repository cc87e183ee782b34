"""Reports mistakes and Ctrl-C by one line and an exit code, for all commands."""

import contextlib
from collections.abc import Iterator

import typer

__all__ = ["Mistake", "reported"]


class Mistake(ValueError):
    """Says that an option does not fit the results at hand."""


@contextlib.contextmanager
def reported(*mistakes: type[Exception], interrupted: str = "nothing was written") -> Iterator[None]:
    """Turns the user's mistakes into a message and exit code 2, and Ctrl-C into a message and exit code 130.

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
    except BrokenPipeError:
        # This is an OSError, but not a mistake: a reader such as `| head` has seen enough.
        raise
    except mistakes as error:
        typer.echo(f"mixjax: {error}", err=True)
        raise typer.Exit(2) from None
