"""Writes blocks of named arrays to disk, each whole or not at all, and checks a block when it is read.

A block is one ``.npz`` file, which holds a digest of its arrays beside them.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from mixjax.files import write_whole
from mixjax.sweeps.arrays import Pieces, digest, heading, is_foreign_float, raw_pieces

__all__ = ["read_block", "write_block"]

_ABOUT = "about"
"""Names the entry with the arrays' names and types and their digest."""


def write_block(path: Path, arrays: Mapping[str, np.ndarray | Pieces]) -> None:
    """Writes arrays as one file, in place of an earlier one.

    A process killed at any point leaves either the old file or the new one. The numbers go to the file and into the
    digest as they lie in memory: saving takes next to no memory of its own.

    Args:
        path: the file, in a folder that exists.
        arrays: name to array.

    Raises:
        OSError: the disk is full, or cannot be written.
    """

    def write(file: IO[bytes]) -> None:
        # An archive of NumPy's, which `np.load` reads; `np.savez` would need each array whole.
        with zipfile.ZipFile(file, "w") as archive:
            types, sha = [], hashlib.sha256()
            # In the order of `digest`.
            for number, name in enumerate(sorted(arrays)):
                array = arrays[name] if isinstance(arrays[name], Pieces) else np.asarray(arrays[name])
                types.append([name, str(array.dtype)])
                sha.update(heading(name, array))
                # Numbered, since a name may hold anything, and an entry of a .npz file is named as a file.
                with _entry(archive, f"array_{number}", array) as entry:
                    for piece in raw_pieces(array):
                        sha.update(piece)
                        entry.write(piece)
            about = np.frombuffer(json.dumps({"types": types, "digest": sha.hexdigest()}).encode(), np.uint8)
            with _entry(archive, _ABOUT, about) as entry:
                entry.write(about.data)

    write_whole(path, write)


def read_block(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of one file.

    Args:
        path: the file.

    Returns:
        Name to array.

    Raises:
        Exception: whatever a damaged file makes its readers raise; a ValueError where the digest does not fit.
    """
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(file[_ABOUT].tobytes())
        # jnp.dtype also knows bfloat16 and its like by name; for NumPy's own types the view changes nothing.
        arrays = {name: file[f"array_{i}"].view(jnp.dtype(dtype)) for i, (name, dtype) in enumerate(about["types"])}
    if digest(arrays) != about["digest"]:
        raise ValueError("its digest does not fit")
    return arrays


def _entry(archive: zipfile.ZipFile, name: str, array: Any) -> IO[bytes]:
    """Opens an entry of an archive for an array, and writes its header."""
    # bfloat16 and its like become unsigned integers: a .npy file has no place for them.
    dtype = np.dtype(f"u{array.dtype.itemsize}") if is_foreign_float(array) else array.dtype
    # The size of an entry is not known before it is written, and may be above 2 GB.
    entry = archive.open(f"{name}.npy", "w", force_zip64=True)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(entry, header)
    return entry
