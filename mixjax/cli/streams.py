"""Guards standard output and standard error: a full disk, or a stream that is closed, is no reason for a traceback."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["OutputError", "guarded_streams"]


class OutputError(Exception):
    """Says that standard output cannot be written. No OSError: a command would take it for one of its files."""


class _Guarded:
    """Stands for a stream whose errors are told in another way."""

    def __init__(self, stream: Any, *, is_output: bool):
        self._stream, self._is_output = stream, is_output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes to the stream."""
        with self._errors_told():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        with self._errors_told():
            self._stream.flush()

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # A reader such as `| head` has seen enough, which is no error.
            raise
        except (OSError, ValueError) as error:
            # Of standard error nobody could be told.
            if self._is_output:
                reason = getattr(error, "strerror", None) or error
                raise OutputError(f"standard output cannot be written: {reason}") from error


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Guards ``sys.stdout`` and ``sys.stderr`` for a ``with`` block.

    A letter that the terminal lacks is written as an escape. What is written to a stream that the process was started
    without is dropped, and so is what standard error cannot take.

    Yields:
        Nothing.

    Raises:
        OutputError: standard output cannot be written.
    """
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Its number is free as well: a file that is opened later would get it, and what libraries print.
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
        # A path may hold bytes that are no UTF-8.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Guarded(stream, is_output=name == "stdout"))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
