"""Takes paths from users, writes files whole or not at all, and locks files against other processes."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["can_name_arrays", "local_path", "lock", "make_folder", "remove_partial", "write_whole"]

_LOG = logging.getLogger(__name__)
_PARTIAL = ".partial"


def local_path(name: str, value: str | os.PathLike) -> Path:
    """Makes a path of what a user gave, and refuses what is no place in the local file system.

    A leading ``~`` is the home folder. A URL would otherwise become a folder called "gs:" below the current one.

    Args:
        name: what the path is for, such as "checkpoint" or "--out", for the error.
        value: the path.

    Returns:
        The path; relative if it was given so.

    Raises:
        TypeError: ``value`` is no path.
        ValueError: ``value`` is empty, a URL such as "gs://bucket/runs", begins with the home of an unknown user, or
            holds a NUL.

    Example:
        >>> local_path("checkpoint", "runs/first")
        PosixPath('runs/first')
        >>> local_path("checkpoint", "gs://bucket/runs")
        Traceback (most recent call last):
            ...
        ValueError: checkpoint: takes a path of the local file system, ..., got 'gs://bucket/runs'
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name}: takes a path, got {value!r}")
    if not text or "\0" in text:
        raise ValueError(f"{name}: takes a path, got {text!r}")
    # One slash is enough: pathlib makes "gs:/bucket" of "gs://bucket". A single letter is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"{name}: takes a path of the local file system, to which a bucket can be mounted, got {text!r}"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{name}: no user has the home folder {text!r}") from None


def make_folder(name: str, folder: Path) -> Path:
    """Makes a folder, and those above it, unless it is there already.

    Args:
        name: what the folder is for, such as "checkpoint" or "--out", for the error.
        folder: the folder.

    Returns:
        The folder.

    Raises:
        OSError: a file is in its place, or it cannot be made. The class is that of the system's error.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "file")
        >>> _ = file.write_text("not a folder")
        >>> make_folder("checkpoint", file / "runs")
        Traceback (most recent call last):
            ...
        NotADirectoryError: checkpoint: takes a folder, but .../file is a file
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                raise type(error)(f"{name}: takes a folder, but {place} is a file") from None
        raise type(error)(f"{name}: {folder} cannot be made: {error.strerror}") from None
    return folder


def can_name_arrays(name: str) -> bool:
    """Tells whether an archive of arrays keeps a name: it cuts names at a NUL, and writes them in UTF-8.

    Args:
        name: of an array, or of what stands in front of its name.

    Example:
        >>> can_name_arrays("loss/ü"), can_name_arrays("loss\\0train")
        (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def write_whole(path: Path, content: str | bytes | Callable[[IO[bytes]], None]) -> None:
    """Writes a file so that a process killed at any point leaves the old content or the new one.

    A process that is killed may leave a file ``.<name>.<random>.partial`` too, see :func:`remove_partial`.

    Args:
        path: the file, in a folder that exists.
        content: all that the file is to hold; a text is written in UTF-8. A function writes to the open file that it
            gets.

    Raises:
        OSError: the disk is full, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.json")
        >>> write_whole(path, "16")
        >>> path.read_text()
        '16'
    """
    # Two processes may write the same file at once, so each writes under a name of its own. The number of a process is
    # none: in containers it is the same in each, and a file left by a killed process would be in the way.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open(partial, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            # The rename below must not reach the disk before the content does.
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Removes what killed processes left of :func:`write_whole` in a folder into which no other process writes.

    Args:
        folder: the folder; files below its own folders stay.
    """
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def lock(path: Path) -> Any:
    """Locks a file against other processes for as long as the caller keeps the result.

    Within one process a file can be locked several times; the results are one object.

    Args:
        path: the file, in a folder that exists.

    Returns:
        The lock: a :class:`filelock.BaseFileLock`. The operating system gives it up when the process ends, however it
        ends. On a file system without locks it keeps nobody out.

    Raises:
        BlockingIOError: another process holds it.
    """
    # Only who writes to a folder needs the package.
    import filelock

    # One object a path: a second one would be kept out by the first.
    held = filelock.FileLock(path, thread_local=False, is_singleton=True)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(f"{path.parent} is in use by another process; wait for it, or end it.") from None
    except (OSError, NotImplementedError):
        # Some network file systems have no locks: better unprotected than not at all.
        _LOG.debug("%s cannot be locked", path)
    return held
