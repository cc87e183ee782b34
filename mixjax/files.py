"""Takes paths from users, writes files whole or not at all, and locks files against other processes."""

from __future__ import annotations

import logging
import os
import re
import uuid
import weakref
from pathlib import Path

__all__ = ["Lock", "local_path", "lock", "write_whole"]

_LOG = logging.getLogger(__name__)


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


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a process killed at any point leaves the old content or the new one.

    Args:
        path: the file, in a folder that exists.
        content: all that the file is to hold; a text is written in UTF-8.

    Raises:
        OSError: the disk is full, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.json")
        >>> write_whole(path, "16")
        >>> path.read_text()
        '16'
    """
    # Two processes may write the same file at once, so each writes under a name of its own.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            # The rename below must not reach the disk before the content does.
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Lock:
    """Keeps a file open whose lock this process holds.

    The file is closed when this object is garbage collected, or when the process ends. The operating system then
    releases the lock.

    Args:
        path: the file; made if it does not exist.
    """

    def __init__(self, path: Path):
        """Opens the file."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, self.file)


# One open file a path: if a process closes any file object of a path, the system releases its lock on that path.
_LOCKS: weakref.WeakValueDictionary[Path, Lock] = weakref.WeakValueDictionary()


def lock(path: Path) -> Lock | None:
    """Locks a file against other processes for as long as the caller keeps the result.

    Args:
        path: the file, in a folder that exists.

    Returns:
        The lock: None on an operating system without file locks, and one that keeps nobody out on a file system
        without them.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    held = _LOCKS.get(path)
    if held is None:
        held = _LOCKS[path] = Lock(path)
    try:
        fcntl.lockf(held.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise BlockingIOError(f"{path.parent} is in use by another process; wait for it, or end it.") from None
    except OSError:
        # Some network file systems have no locks: better unprotected than not at all.
        _LOG.debug("%s cannot be locked", path)
    return held
