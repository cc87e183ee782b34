"""Finished chunks of a sweep on disk, so that a run that was killed goes on where it stopped."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ChangedError", "Chunks"]

_LOG = logging.getLogger(__name__)
_IDENTITY, _ROWS = "identity.json", "rows.json"


class ChangedError(ValueError):
    """What is to be run is not what the folder's chunks were computed by; the message says what changed."""


class Chunks:
    """The chunks of one sweep, in a folder of its own: orbax checkpoints, each with a digest of its arrays.

    A chunk is known by the number of its first run. The processes of one sweep may write to one folder, each its own
    chunks; a second process of the same number is turned away while the first one lives. A checkpoint is written under
    another name and then renamed, so that a process killed at any point leaves whole ones only. One that is damaged
    all the same (cut, altered, unreadable) is reported as a warning and not read, and its chunks are computed again.
    Nothing in the folder is deleted but carries of chunks that are done and, where the identity is damaged, what was
    written beside it.

    Args:
        folder: made if it does not exist.
        identity: what the results depend on, name to value; values as JSON has them.

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
        """Opens the folder, and writes its identity if it is new."""
        self.folder = Path(folder).absolute()
        self._checkpointer, self._args = _orbax()
        identity, path = json.loads(json.dumps(dict(identity))), self.folder / _IDENTITY
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):
            raise PermissionError(f"{self.folder} cannot be written")
        self._lock = _lock(self.folder / f"lock_{jax.process_index()}")
        own = [*self.folder.glob("chunk_*"), *self.folder.glob("carry_*"), *self.folder.glob(_ROWS)]
        before, damaged = None, False
        try:
            before = json.loads(path.read_text())
        except FileNotFoundError:
            if own:
                raise ChangedError(
                    f"{own[0]} has no {_IDENTITY} beside it that would tell which run it is of; give another folder, "
                    "or empty this one."
                ) from None
        except ValueError:
            damaged = True
        known = identity if before is None else before
        if names := [name for name in {**known, **identity} if known.get(name) != identity.get(name)]:
            changes = "; ".join(_change(name, known.get(name), identity.get(name)) for name in names)
            raise ChangedError(
                f"{self.folder} holds chunks of another run: {changes}. Go back to what it was, or delete the folder."
            )
        if damaged:
            _LOG.warning("%s is damaged: all is computed again", path)
            for each in own:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        if before is None:
            _write(path, json.dumps(identity, indent=1))

    def read(self) -> dict[int, dict[str, np.ndarray]]:
        """Number of a chunk's first run -> metrics, of every whole checkpoint."""
        chunks = {}
        for block in self._blocks():
            chunks |= self._read(block) or {}
        return chunks

    def write(self, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Writes some chunks as one checkpoint, and drops their carries.

        Args:
            chunks: number of a chunk's first run -> metrics.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        if chunks:
            self._write(f"chunk_{min(chunks):09d}", chunks)
            for number in chunks:
                self._drop(self._carries(number))

    def read_carry(self, number: int) -> tuple[int, dict[str, np.ndarray]] | None:
        """What was last kept of a chunk in the middle of its training.

        Args:
            number: of its first run.

        Returns:
            Segments done, and the arrays kept with them; None where there is nothing, or nothing whole.
        """
        for block in reversed(self._carries(number)):
            if kept := self._read(block):
                return next(iter(kept.items()))
        return None

    def write_carry(self, number: int, segments: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps a chunk in the middle of its training, in place of what was kept of it before.

        Args:
            number: of its first run.
            segments: those that are done.
            arrays: what to go on from.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        before = self._carries(number)
        self._write(f"carry_{number:09d}_{segments:09d}", {segments: arrays})
        self._drop(before)

    @property
    def rows(self) -> int | None:
        """The size of a chunk that the sweep chose itself, if it did."""
        try:
            return json.loads((self.folder / _ROWS).read_text())
        except (FileNotFoundError, ValueError):
            return None

    @rows.setter
    def rows(self, value: int) -> None:
        _write(self.folder / _ROWS, json.dumps(value))

    def _carries(self, number):
        """From the oldest, like :meth:`_blocks`."""
        return sorted(p for p in self.folder.glob(f"carry_{number:09d}_*") if p.name.rpartition("_")[2].isdigit())

    def _drop(self, blocks):
        for block in blocks:
            shutil.rmtree(block, ignore_errors=True)

    def _write(self, name, numbered):
        arrays = {
            f"{number}/{metric}": np.asarray(array)
            for number, metrics in numbered.items()
            for metric, array in metrics.items()
        }
        self._checkpointer.save(self.folder / name, args=self._args(arrays), force=True)

    def _blocks(self):
        """Checkpoints that were finished; the others have orbax's temporary names."""
        return sorted(path for path in self.folder.glob("chunk_*") if path.name[len("chunk_") :].isdigit())

    def _read(self, block):
        """What a checkpoint holds; None and a warning if it is damaged."""
        try:
            arrays = self._checkpointer.restore(block)
        except Exception as error:  # whatever a damaged file makes its readers raise
            _LOG.warning("%s is damaged and computed again: %s", block, error)
            return None
        numbered = {}
        for name, array in arrays.items():
            number, metric = name.split("/", 1)
            numbered.setdefault(int(number), {})[metric] = array
        return numbered


@functools.cache
def _orbax():
    """Orbax's checkpointer, for arrays of NumPy that belong to one process, and the arguments it saves.

    Orbax's own handlers of arrays write what all processes hold together, or what the first one holds.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("checkpoints need orbax: pip install 'mixjax[experiments]'") from error

    class Handler(ocp.CheckpointHandler):
        def save(self, directory, args):
            types = {name: str(array.dtype) for name, array in args.arrays.items()}
            # bfloat16 and its like have no place in a .npy file
            plain = {n: x.view(f"u{x.itemsize}") if x.dtype.kind == "V" else x for n, x in args.arrays.items()}
            _write(Path(directory) / "digest.json", json.dumps({"types": types, "digest": digest(args.arrays)}))
            with open(directory / "arrays.npz", "wb") as file:
                np.savez(file, **plain)
                file.flush()
                os.fsync(file.fileno())

        def restore(self, directory, args=None):
            kept = json.loads((Path(directory) / "digest.json").read_text())
            with np.load(directory / "arrays.npz") as file:
                arrays = {name: file[name].view(jnp.dtype(dtype)) for name, dtype in kept["types"].items()}
            if digest(arrays) != kept["digest"]:
                raise ValueError("its digest does not fit")
            return arrays

    @ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
    @dataclasses.dataclass
    class Args(ocp.args.CheckpointArgs):
        arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    return ocp.Checkpointer(Handler(), multiprocessing_options=alone), Args


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of arrays, with their names, types and shapes.

    Args:
        arrays: name -> array; the names' order does not count.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest({"x": np.zeros(2)}) == digest({"x": np.zeros(2, np.float32)})
        False
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _change(name, before, now):
    if isinstance(before, dict) and isinstance(now, dict):
        inner = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(_change(f"{name}.{key}", before.get(key), now.get(key)) for key in inner)
    if all(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in (before, now)):
        return f"{name} differs"
    before, now = (text if len(text := json.dumps(value)) < 60 else f"{text[:57]}..." for value in (before, now))
    return f"{name}: {before}, now {now}"


class _Lock:
    """A descriptor, closed when it is forgotten: the system then, or when the process ends, gives up its lock."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, self.file)


_LOCKS = weakref.WeakValueDictionary()  # closing any descriptor of a file gives up the process's lock: one for each


def _lock(path):
    """What keeps other processes from the same lock for as long as it is referred to.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: without a lock
        return None
    lock = _LOCKS.get(path)
    if lock is None:
        lock = _LOCKS[path] = _Lock(path)
    try:
        fcntl.lockf(lock.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise BlockingIOError(f"{path.parent} is in use by another process; wait for it, or end it.") from None
    except OSError:  # a file system without locks
        _LOG.debug("%s cannot be locked", path)
    return lock


def _write(path, text):
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
