"""Keeps the chunks of a sweep on disk, so that a sweep that was killed goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixjax.files import local_path, lock, make_folder, remove_partial, write_whole
from mixjax.sweeps.arrays import Pieces
from mixjax.sweeps.attempts import Attempts
from mixjax.sweeps.blocks import read_block, write_block
from mixjax.sweeps.segments import Kept

__all__ = ["ChangedError", "Chunks", "kept_identity", "remove_chunks"]

_LOG = logging.getLogger(__name__)
_IDENTITY, _CHUNK_SIZE, _LANES, _SUFFIX = "identity.json", "size.json", "lanes.json", ".npz"
_ABSENT = object()


class ChangedError(ValueError):
    """Says that a folder holds chunks of another sweep, and what differs between the two."""


class Chunks:
    """Keeps the chunks of one sweep in a folder: checkpoints, files of arrays with a digest of them.

    A checkpoint holds one chunk or several, and is named by the number of the first run. A carry is the state of an
    unfinished chunk, from which its training can be continued.

    - Several processes of one sweep may write to one folder, each its own chunks. A second process with the same
      ``jax.process_index()`` is turned away while the first one lives.
    - A process killed at any point leaves whole checkpoints only.
    - A checkpoint that is damaged all the same (cut, altered, unreadable) is reported as a warning and not read; its
      chunks are computed again.
    - Three things are deleted: the carries of finished chunks; files that a killed process was writing; and, where the
      file with the identity is damaged, the checkpoints beside it.

    Args:
        folder: made if it does not exist.
        identity: all that the results depend on, by name, as JSON values.

    Attributes:
        attempts: tells how the last attempt ended, see :class:`mixjax.sweeps.attempts.Attempts`.

    Raises:
        ChangedError: the folder holds chunks of another identity, or of none.
        OSError: the folder cannot be written, or (a BlockingIOError) another process is writing there.

    Example:
        >>> import tempfile, numpy as np
        >>> from mixjax.sweeps.checkpoints import Chunks
        >>> folder = tempfile.mkdtemp()
        >>> Chunks(folder, {"seeds": 4}).write({0: {"error": np.ones(2)}, 2: {"error": np.zeros(2)}})
        >>> Chunks(folder, {"seeds": 4}).read()[2]["error"].tolist()
        [0.0, 0.0]
        >>> Chunks(folder, {"seeds": 5})
        Traceback (most recent call last):
            ...
        mixjax.sweeps.checkpoints.ChangedError: ... seeds: 4, now 5...
    """

    def __init__(self, folder: str | os.PathLike, identity: Mapping[str, Any]):
        """Opens the folder, and writes the identity into a new one."""
        self.folder = local_path("folder", folder).absolute()
        # Through JSON and back: tuples become lists, so that the identity compares with the one in the file.
        identity = json.loads(json.dumps(dict(identity)))
        make_folder("checkpoint", self.folder)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"checkpoint: {self.folder} cannot be written")
        # Locked before anything is compared or deleted: another process may be at work here.
        self._lock = lock(self.folder / f"lock_{jax.process_index()}")
        self._check_identity(identity)
        self.attempts = Attempts(self.folder)
        # The first host opens the folder while the others wait.
        if jax.process_index() == 0:
            remove_partial(self.folder)

    def _check_identity(self, identity):
        """Compares the identity with the one in the folder, and writes it where there is none."""
        path = self.folder / _IDENTITY
        patterns = ("chunk_*", "carry_*", _CHUNK_SIZE, _LANES)
        contents = [path for pattern in patterns for path in self.folder.glob(pattern)]
        before = None
        try:
            before = json.loads(path.read_text())
            if not isinstance(before, dict):
                raise ValueError("no object")
        except FileNotFoundError:
            if contents:
                raise ChangedError(
                    f"{contents[0]} has no {_IDENTITY} beside it that would tell which sweep it belongs to; give "
                    "another folder, or empty this one."
                ) from None
        except ValueError:
            _LOG.warning("%s is damaged: everything is computed again", path)
            before = None
            for each in contents:
                # A folder was not made here.
                if each.is_file():
                    each.unlink()
        if before is None:
            write_whole(path, json.dumps(identity, indent=1))
        elif before != identity:
            raise ChangedError(
                f"{self.folder} holds chunks of another run: {_changes(before, identity)}. Go back to what it was, or "
                "delete the folder."
            )

    def read(self) -> dict[int, dict[str, np.ndarray]]:
        """Returns every chunk of every whole checkpoint: the number of its first run -> metrics."""
        chunks = {}
        for path in _numbered(self.folder, "chunk_"):
            chunks |= _read(path)
        return chunks

    def write(self, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Writes some chunks as one checkpoint, and drops their carries.

        Args:
            chunks: number of a chunk's first run -> metrics.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        if not chunks:
            return
        _write(self.folder / f"chunk_{min(chunks):09d}{_SUFFIX}", chunks)
        # Carries are dropped last: after a kill during the write, the chunk is continued from its carry.
        for number in chunks:
            _drop(self._carries(number))

    def read_carry(self, number: int) -> Kept | None:
        """Reads the newest whole carry of an unfinished chunk.

        Args:
            number: the number of the chunk's first run.

        Returns:
            The unfinished chunk; None where no carry is there, or none that is whole.
        """
        for path in reversed(self._carries(number)):
            numbered = _read(path)
            if numbered:
                ((segments, arrays),) = numbered.items()
                return Kept(segments, arrays)
        return None

    def write_carry(self, number: int, segments: int, arrays: Mapping[str, np.ndarray | Pieces]) -> None:
        """Writes the carry of an unfinished chunk, and drops its older carries.

        Args:
            number: the number of the chunk's first run.
            segments: the number of segments that are done.
            arrays: what is needed to continue.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        before = self._carries(number)
        _write(self.folder / f"carry_{number:09d}_{segments:09d}{_SUFFIX}", {segments: arrays})
        # The older carries are dropped last: after a kill during the write, they are still there.
        _drop(before)

    @property
    def chunk_size(self) -> int | None:
        """Returns the number of runs in a chunk that the sweep chose itself, or None where it chose none."""
        return self._count(_CHUNK_SIZE)

    @chunk_size.setter
    def chunk_size(self, value: int) -> None:
        write_whole(self.folder / _CHUNK_SIZE, json.dumps(value))

    def shrink(self, value: int) -> int:
        """Writes down a number of runs in a chunk that fits, and returns the smallest that any host has written."""
        value = min(self.chunk_size or value, value)
        self.chunk_size = value
        return value

    @property
    def vectorize(self) -> Any:
        """Returns "map", or how many runs a device computes at once, where the sweep chose that itself, or None."""
        try:
            if json.loads((self.folder / _LANES).read_text()) == "map":
                return "map"
        except (FileNotFoundError, ValueError):
            return None
        return self._count(_LANES)

    @vectorize.setter
    def vectorize(self, value: str | int) -> None:
        write_whole(self.folder / _LANES, json.dumps(value))

    def _count(self, name):
        """Reads a number from a file; None where there is none."""
        try:
            # Less than one run is a damaged file too.
            return int(json.loads((self.folder / name).read_text())) or None
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _carries(self, number):
        """Lists the carries of a chunk, the oldest first."""
        return _numbered(self.folder, f"carry_{number:09d}_")


def kept_identity(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the identity of the sweep whose chunks a folder holds.

    Args:
        folder: the folder; it need not exist.

    Returns:
        The identity; empty where there is none that can be read.
    """
    try:
        identity = json.loads((Path(folder) / _IDENTITY).read_text())
    except (OSError, ValueError):
        return {}
    return identity if isinstance(identity, dict) else {}


def remove_chunks(folder: Path) -> None:
    """Removes a folder of chunks, or a folder of such folders, when the result is safe.

    A process killed meanwhile leaves a folder from which the same call goes on: a chunk without the identity of its
    sweep could not be told from somebody else's, so that the identities go last. What cannot be removed stays.

    Args:
        folder: the folder; it need not exist.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = Path(tempfile.mkdtemp(), "chunks")
        >>> Chunks(folder, {"seeds": 4}).write({0: {"error": np.ones(2)}})
        >>> remove_chunks(folder)
        >>> folder.exists()
        False
    """
    for place, _, names in os.walk(folder, topdown=False):
        _drop(Path(place, name) for name in names if name != _IDENTITY)
    shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, numbered: Mapping[int, Mapping[str, Any]]) -> None:
    # A block is flat: the number becomes a part of each array's name.
    arrays = {}
    for number, metrics in numbered.items():
        for metric, array in metrics.items():
            arrays[f"{number}/{metric}"] = array
    write_block(path, arrays)


def _read(path: Path) -> dict[int, dict[str, np.ndarray]]:
    """Returns what :func:`_write` wrote; nothing, and a warning, if the checkpoint is damaged."""
    try:
        arrays = read_block(path)
    except Exception as error:  # whatever a damaged file makes its readers raise
        _LOG.warning("%s is damaged and computed again: %s", path, error)
        return {}
    numbered: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        number, metric = name.split("/", 1)
        numbered.setdefault(int(number), {})[metric] = array
    return numbered


def _numbered(folder: Path, prefix: str) -> list[Path]:
    """Lists the checkpoints of a folder whose names are the prefix and a number, in the order of the numbers."""
    return sorted(path for path in folder.glob(f"{prefix}*{_SUFFIX}") if path.stem.removeprefix(prefix).isdigit())


def _drop(paths: Iterable[Path]) -> None:
    # What cannot be deleted does no harm: newer carries and finished chunks are taken before an old carry.
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _changes(before: Any, now: Any, path: str = "") -> str:
    """Describes how two JSON values differ; names values inside objects by their dotted paths."""
    if isinstance(before, dict) and isinstance(now, dict):
        prefix = f"{path}." if path else ""
        names = [name for name in {**before, **now} if before.get(name, _ABSENT) != now.get(name, _ABSENT)]
        return "; ".join(_changes(before.get(name), now.get(name), f"{prefix}{name}") for name in names)
    if _is_digest(before) and _is_digest(now):
        return f"{path} differs"  # 64 hexadecimal digits would tell nobody more
    return f"{path}: {_short(before)}, now {_short(now)}"


def _is_digest(value):
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _short(value):
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
