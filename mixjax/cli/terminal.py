"""What the commands share: mistakes as messages, tables as lines."""

import contextlib
from collections.abc import Iterator, Sequence

import typer


class Mistake(ValueError):
    """An option that does not fit the results."""


@contextlib.contextmanager
def reported(*mistakes: type[Exception], interrupted: str = "nothing was written") -> Iterator[None]:
    """Turns the user's mistakes, and Ctrl-C, into a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"mixjax: interrupted; {interrupted}", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # `| head`
        raise
    except mistakes as error:
        typer.echo(f"mixjax: {error}", err=True)
        raise typer.Exit(2) from None


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
