"""Sends data sets to worker processes, with memory maps as the names of their files."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import sys
from multiprocessing.reduction import ForkingPickler
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

__all__ = ["Sent"]


class Sent:
    """Holds data sets; a process that gets them opens the files of their memory maps itself.

    A memory map is pickled as what it holds. A token file of 100 GB would be read, sent and kept once a worker. Here
    every array that lies in a file that is mapped, also a view of it and also inside a ``grain.MapDataset``, goes as
    the file's name and the array's place in it.

    Arrays are sent as they are where the file is gone, and where the map is copy-on-write (mode ``"c"``), since it may
    then hold what the file does not.

    Args:
        datasets: anything that can be pickled.

    Example:
        >>> import pickle, tempfile
        >>> import numpy as np
        >>> path = tempfile.mkdtemp() + "/tokens.bin"
        >>> np.arange(100_000, dtype=np.uint16).tofile(path)
        >>> windows = np.memmap(path, np.uint16, "r").reshape(-1, 100)
        >>> sent = pickle.dumps(Sent([windows]))
        >>> len(sent) < 1000, pickle.loads(sent)[0][7, :3].tolist()
        (True, [700, 701, 702])
    """

    def __init__(self, datasets: Any):
        """Keeps the data sets; nothing is pickled before a process starts."""
        self.datasets = datasets

    def __reduce__(self):
        """Pickles the data sets, so that what arrives in the other process is the data sets themselves."""
        # Within the pickling of the process, since locks allow to be pickled only there.
        try:
            return pickle.loads, (_pickled(self.datasets),)
        except _UNPICKLABLE as error:
            raise TypeError(
                f"{self._culprit()} cannot be sent to a worker: {error}. Open files and connections when they are "
                "first read from, or do without workers."
            ) from error

    def _culprit(self) -> str:
        """Names the domain whose data set cannot be pickled."""
        if isinstance(self.datasets, dict):
            for name, dataset in self.datasets.items():
                try:
                    _pickled(dataset)
                except _UNPICKLABLE:
                    return f"the data set of domain {name!r}"
        return "a data set"


# What pickle raises where it cannot name a function, or must not copy a file, a lock and the like.
_UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)


def _pickled(datasets: Any) -> bytes:
    """Pickles functions by name where workers can import them, else by what they are, as grain's own workers do."""
    # Workers cannot import what was typed into a notebook.
    if hasattr(sys.modules["__main__"], "__file__"):
        try:
            return _dumped(_ByName, datasets)
        except _UNPICKLABLE:
            pass
    return _dumped(_ByValue, datasets)


def _dumped(kind: type[pickle.Pickler], datasets: Any) -> bytes:
    buffer = io.BytesIO()
    kind(buffer, pickle.HIGHEST_PROTOCOL).dump(datasets)
    return buffer.getvalue()


class _ByName(ForkingPickler):
    """Pickles arrays that lie in a mapped file as their place in it."""

    def reducer_override(self, obj: Any) -> Any:
        """Returns how to build an array from its file, or what tells pickle to go on as usual."""
        return _place_of(obj) or NotImplemented


class _ByValue(cloudpickle.Pickler):
    """Pickles functions that have no name too, such as those of ``.map(lambda ...)``."""

    def reducer_override(self, obj: Any) -> Any:
        """Returns how to build an array from its file, or a function from its code."""
        return _place_of(obj) or super().reducer_override(obj)


def _place_of(obj: Any) -> tuple | None:
    """Returns how to build an array that lies in a mapped file, for pickle; None for all else."""
    # Masked arrays, for one, are arrays with more to them than their place in a file.
    source = _file_of(obj) if type(obj) in (np.ndarray, np.memmap) else None
    if source is None:
        return None
    path, mode, offset = source
    return _opened, (path, mode, obj.dtype, offset, obj.shape, obj.strides, obj.flags.writeable)


def _file_of(array: NDArray) -> tuple[str, str, int] | None:
    """Returns the file that an array is mapped from, the mode and the array's first byte in it; None without a file."""
    owner, mapped = array, None
    # A view of a view names the one before, down to the object that owns the memory.
    while owner is not None:
        if isinstance(owner, np.memmap):
            mapped = owner
        owner = getattr(owner, "base", None)
    if mapped is None or mapped.filename is None or mapped.mode not in ("r", "r+", "w+"):
        return None
    path = os.path.abspath(os.fspath(mapped.filename))
    if not isinstance(mapped.base, mmap.mmap) or not os.path.isfile(path):
        return None
    offset = mapped.offset + _address(array) - _address(mapped)
    return path, "r" if mapped.mode == "r" else "r+", offset


def _address(array: NDArray) -> int:
    return array.__array_interface__["data"][0]


def _opened(path, mode, dtype, offset, shape, strides, writeable):
    """Maps a file and returns the array that lies at a place of it."""
    whole = np.memmap(path, np.uint8, mode)
    array = np.ndarray(shape, dtype, whole, offset, strides)
    array.flags.writeable = writeable
    return array
