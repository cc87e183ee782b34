"""Locks on files, which keep a second process out of a folder."""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path

__all__ = ["Lock", "lock"]

_LOG = logging.getLogger(__name__)


class Lock:
    """Keeps a file open whose lock this process holds.

    The file is closed when the object is forgotten, or when the process ends. The system then gives up the lock.

    Args:
        path: the file; made if it does not exist.
    """

    def __init__(self, path: Path):
        """Opens the file."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, self.file)


# One open file for each path: closing a second one of the same path would give up this process's lock on it.
_LOCKS: weakref.WeakValueDictionary[Path, Lock] = weakref.WeakValueDictionary()


def lock(path: Path) -> Lock | None:
    """Locks a file against other processes for as long as the result is referred to.

    Args:
        path: the file, in a folder that exists.

    Returns:
        The lock. Systems and file systems without locks give none, or one that keeps nobody out.

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
