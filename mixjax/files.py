"""Takes paths from users, writes files whole or not at all, and locks files against other processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

__all__ = [
    "can_name_arrays",
    "claimed",
    "is_locked",
    "local_path",
    "lock",
    "make_folder",
    "remove_partial",
    "write_whole",
    "writing",
]

_LOG = logging.getLogger(__name__)
_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLAIMED: set[Path] = set()
_GUARD = threading.Lock()


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


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Names the file, and says what to do, in the system's error that writing it raises.

    The system's own error names no file where the disk is full.

    Args:
        path: the file or folder that is written in the ``with`` block.

    Yields:
        Nothing.

    Raises:
        OSError: the system's error in one line. Its class and its ``errno`` are those of the system's.

    Example:
        >>> with writing("runs/rows.json"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
            ...
        OSError: runs/rows.json cannot be written: No space left on device. Make room, then the same call goes on.
    """
    try:
        yield
    except OSError as error:
        # An error that tells where it comes from already, of a block inside this one or of another check here.
        if error.strerror is None:
            raise
        advice = ". Make room, then the same call goes on." if error.errno in _FULL else ""
        told = type(error)(f"{os.fspath(path)} cannot be written: {error.strerror}{advice}")
        told.errno = error.errno
        raise told from error


def write_whole(path: Path, content: str | bytes | Callable[[IO[bytes]], None]) -> None:
    """Writes a file so that a process killed at any point leaves the old content or the new one.

    A process that is killed may leave a file ``.<name>.<random>.partial`` too, see :func:`remove_partial`.

    Args:
        path: the file, in a folder that exists.
        content: all that the file is to hold; a text is written in UTF-8. A function writes to the open file that it
            gets.

    Raises:
        OSError: the disk is full, or the folder cannot be written; names the file, see :func:`writing`.

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
    with writing(path):
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
            # On a file system that has become read-only, this would hide the error that tells so.
            with contextlib.suppress(OSError):
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


def is_locked(path: Path) -> bool | None:
    """Tells whether another process holds a file that it has locked by :func:`lock`.

    Args:
        path: the file.

    Returns:
        None where that cannot be told: there is no file, or the system or the file system has no locks.
    """
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other threads of this process out of a folder for a ``with`` block; :func:`lock` keeps processes out.

    Args:
        folder: the folder; it need not exist.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: a block of this process holds it already.

    Example:
        >>> with claimed(Path("runs")), claimed(Path("runs")):
        ...     pass
        Traceback (most recent call last):
            ...
        BlockingIOError: runs is in use by another call in this process; wait for it, or give another folder.
    """
    place = folder.absolute()
    with _GUARD:
        if place in _CLAIMED:
            raise BlockingIOError(
                f"{folder} is in use by another call in this process; wait for it, or give another folder."
            )
        _CLAIMED.add(place)
    try:
        yield
    finally:
        with _GUARD:
            _CLAIMED.discard(place)
