"""Finished chunks of a sweep on disk, so that a run that was killed goes on where it stopped."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["ChangedError", "Chunks"]

_LOG = logging.getLogger(__name__)
_IDENTITY, _ROWS = "identity.json", "rows.json"


class ChangedError(ValueError):
    """What is to be run is not what the folder's chunks were computed by; the message says what changed."""


class Chunks:
    """The chunks of one sweep, in a folder of its own: orbax checkpoints, each with a digest of its arrays.

    A chunk is known by the number of its first run. Several processes may write to one folder, each its own chunks. A
    checkpoint is written under another name and then renamed, so that a process killed at any point leaves whole ones
    only. One that is damaged all the same (cut, altered, unreadable) is reported as a warning and taken away, and its
    chunks are computed again.

    Args:
        folder: made if it does not exist.
        identity: what the results depend on, name to value; values as JSON has them.

    Raises:
        ChangedError: the folder holds chunks of another identity.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile, numpy as np
        >>> from mixjax.checkpoints import Chunks
        >>> folder = tempfile.mkdtemp()
        >>> Chunks(folder, {"seeds": 4}).write({0: {"error": np.ones(2)}, 2: {"error": np.zeros(2)}})
        >>> Chunks(folder, {"seeds": 4}).read()[2]["error"].tolist()
        [0.0, 0.0]
        >>> Chunks(folder, {"seeds": 5})
        Traceback (most recent call last):
            ...
        mixjax.checkpoints.ChangedError: ... seeds: 4, now 5...
    """

    def __init__(self, folder: str | os.PathLike, identity: Mapping[str, Any]):
        """Opens the folder, and writes its identity if it is new."""
        try:
            import orbax.checkpoint as ocp
        except ImportError as error:
            raise ImportError("checkpoints need orbax: pip install 'mixjax[experiments]'") from error
        self.folder = Path(folder).absolute()
        own = jax.process_index()  # each process writes by itself: nothing waits for another one
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        self._orbax, self._checkpointer = ocp, ocp.Checkpointer(handler, multiprocessing_options=alone)
        identity, path = json.loads(json.dumps(dict(identity))), self.folder / _IDENTITY
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            before = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):  # new; or cut, which chunks without an identity do not survive
            for block in self._blocks():
                _LOG.warning("no identity beside %s: its chunks are computed again", block)
                shutil.rmtree(block)
            _write(path, json.dumps(identity, indent=1))
            return
        names = [name for name in {**before, **identity} if before.get(name) != identity.get(name)]
        if names:
            changes = "; ".join(_change(name, before.get(name), identity.get(name)) for name in names)
            raise ChangedError(
                f"{self.folder} holds chunks of another run: {changes}. Go back to what it was, or delete the folder."
            )

    def read(self) -> dict[int, dict[str, np.ndarray]]:
        """Number of a chunk's first run -> metrics, of every whole checkpoint."""
        chunks = {}
        for block in self._blocks():
            chunks |= self._read(block) or {}
        return chunks

    def write(self, chunks: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Writes some chunks, first run -> metrics, as one checkpoint, and drops their carries."""
        if chunks:
            self._write(f"chunk_{min(chunks):09d}", chunks)
            for number in chunks:
                self._drop(self._carries(number))

    def read_carry(self, number: int) -> tuple[int, dict[str, np.ndarray]] | None:
        """Of the chunk that starts with run ``number``: segments done, and the arrays last kept with them."""
        for block in reversed(self._carries(number)):
            if kept := self._read(block):
                return next(iter(kept.items()))
        return None

    def write_carry(self, number: int, segments: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps a chunk in the middle of its training: after so many segments, these arrays."""
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
            f"{number}/{name}": np.asarray(array)
            for number, metrics in numbered.items()
            for name, array in metrics.items()
        }
        whole = {name: array for name, array in arrays.items() if array.size}  # orbax has no empty arrays
        empty = {name: [str(array.dtype), array.shape] for name, array in arrays.items() if not array.size}
        head = json.dumps({"empty": empty, "chunks": list(numbered)}).encode()
        tree = {"arrays": whole, "head": np.frombuffer(head, np.uint8), "digest": _digest(whole, head)}
        self._checkpointer.save(self.folder / name, args=self._orbax.args.PyTreeSave(tree), force=True)

    def _blocks(self):
        """Checkpoints that were finished; the others have orbax's temporary names."""
        return sorted(path for path in self.folder.glob("chunk_*") if path.name[len("chunk_") :].isdigit())

    def _read(self, block):
        """What a checkpoint holds; None, a warning and no checkpoint any more if it is damaged."""
        try:
            tree = self._checkpointer.restore(block)
            whole, head = tree.get("arrays", {}), np.asarray(tree["head"]).tobytes()
            if not np.array_equal(tree["digest"], _digest(whole, head)):
                raise ValueError("its digest does not fit")
        except Exception as error:  # whatever a damaged file makes its readers raise
            _LOG.warning("%s is damaged and computed again: %s", block, error)
            shutil.rmtree(block)
            return None
        described = json.loads(head)
        whole |= {name: np.zeros(shape, dtype) for name, (dtype, shape) in described["empty"].items()}
        chunks = {number: {} for number in described["chunks"]}
        for name, array in whole.items():
            number, metric = name.split("/", 1)
            chunks[int(number)][metric] = np.asarray(array)
        return chunks


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of arrays by name, with their types and shapes, in hexadecimal."""
    return _digest(arrays, b"").tobytes().hex()


def _digest(arrays, head) -> np.ndarray:
    sha = hashlib.sha256(head)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return np.frombuffer(sha.digest(), np.uint8)


def _change(name, before, now):
    if isinstance(before, dict) and isinstance(now, dict):
        inner = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(_change(f"{name}.{key}", before.get(key), now.get(key)) for key in inner)
    before, now = (text if len(text := json.dumps(value)) < 60 else f"{text[:57]}..." for value in (before, now))
    return f"{name}: {before}, now {now}"


def _write(path, text):
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)
