"""Sends data sets to worker processes, with memory maps as the names of their files."""

from __future__ import annotations

import io
import mmap
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

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
        buffer = io.BytesIO()
        _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(self.datasets)
        return pickle.loads, (buffer.getvalue(),)


class _Pickler(ForkingPickler):
    """Pickles arrays that lie in a mapped file as their place in it."""

    def reducer_override(self, obj: Any) -> Any:
        """Returns how to build an array from its file, or what tells pickle to go on as usual."""
        # Masked arrays, for one, are arrays with more to them than their place in a file.
        source = _file_of(obj) if type(obj) in (np.ndarray, np.memmap) else None
        if source is None:
            return NotImplemented
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
