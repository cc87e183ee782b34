"""Writes blocks of named arrays to disk, each whole or not at all, and checks a block when it is read.

A block is one ``.npz`` file, which holds a digest of its arrays beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import jax.numpy as jnp
import numpy as np

from mixjax.files import write_whole
from mixjax.sweeps.arrays import digest, is_foreign_float

__all__ = ["read_block", "write_block"]

_ABOUT = "about"
"""Names the entry with the arrays' names and types and their digest."""


def write_block(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as one file, in place of an earlier one.

    A process killed at any point leaves either the old file or the new one.

    Args:
        path: the file, in a folder that exists.
        arrays: name to array.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    types = [[name, str(array.dtype)] for name, array in arrays.items()]
    about = json.dumps({"types": types, "digest": digest(arrays)}).encode()
    # Numbered, since a name may hold anything, and an entry of a .npz file is named as a file.
    entries = {f"array_{i}": _plain(array) for i, array in enumerate(arrays.values())}
    entries[_ABOUT] = np.frombuffer(about, np.uint8)

    def write(file: IO[bytes]) -> None:
        # pyright takes an array for savez's own keyword allow_pickle, which no entry is called.
        np.savez(file, **entries)  # pyright: ignore[reportArgumentType]

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


def _plain(array):
    """Views bfloat16 and its like as unsigned integers: a .npy file has no place for them."""
    return array.view(f"u{array.itemsize}") if is_foreign_float(array) else array
