"""Writes blocks of named arrays to disk, each whole or not at all, and checks a block when it is read.

A block is one orbax checkpoint, a folder with the arrays and a digest of them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixjax.checks import requires
from mixjax.files import write_whole
from mixjax.sweeps.arrays import digest, is_foreign_float

__all__ = ["read_block", "require_orbax", "write_block"]


def require_orbax() -> None:
    """Loads orbax, so that a missing package shows before anything is computed.

    Raises:
        ImportError: orbax is missing (extra ``experiments``).
    """
    _orbax()


def write_block(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as one orbax checkpoint, in place of an earlier one.

    Orbax writes to a temporary name and renames the folder at the end: a process killed at any point leaves either the
    whole checkpoint under ``path`` or nothing.

    Args:
        path: the checkpoint's folder.
        arrays: name to array.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    checkpointer, arguments = _orbax()
    checkpointer.save(path, args=arguments(dict(arrays)), force=True)


def read_block(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of one checkpoint.

    Args:
        path: the checkpoint's folder.

    Returns:
        Name to array.

    Raises:
        Exception: whatever a damaged file makes its readers raise; a ValueError where the digest does not fit.
    """
    checkpointer, _ = _orbax()
    return checkpointer.restore(path)


@functools.cache
def _orbax():
    """Returns orbax's checkpointer for NumPy arrays of this process, and the class that wraps what it saves.

    Orbax's own handlers do not fit: on several hosts they write the arrays that all processes hold together, or those
    of the first process only. Here each process writes its own chunks.
    """
    with requires("experiments", "a sweep with a checkpoint"):
        import orbax.checkpoint as ocp

    class Handler(ocp.CheckpointHandler):
        def save(self, directory, args):
            _save(Path(directory), args.arrays)

        def restore(self, directory, args=None):
            return _restore(Path(directory))

    @ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
    @dataclasses.dataclass
    class Arguments(ocp.args.CheckpointArgs):
        arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    this_host = jax.process_index()
    # Without these options orbax would wait for the other hosts at each save.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this_host, active_processes={this_host}, barrier_sync_key_prefix=f"process_{this_host}"
    )
    return ocp.Checkpointer(Handler(), multiprocessing_options=alone), Arguments


def _save(folder: Path, arrays: Mapping[str, Any]) -> None:
    types = {name: str(array.dtype) for name, array in arrays.items()}
    write_whole(folder / "digest.json", json.dumps({"types": types, "digest": digest(arrays)}))
    with open(folder / "arrays.npz", "wb") as file:
        np.savez(file, **{name: _plain(array) for name, array in arrays.items()})
        file.flush()
        # Orbax renames the folder next: the new name must not reach the disk before the numbers do.
        os.fsync(file.fileno())


def _restore(folder: Path) -> dict[str, np.ndarray]:
    kept = json.loads((folder / "digest.json").read_text())
    # jnp.dtype also knows bfloat16 and its like by name; for NumPy's own types the view changes nothing.
    with np.load(folder / "arrays.npz") as file:
        arrays = {name: file[name].view(jnp.dtype(dtype)) for name, dtype in kept["types"].items()}
    if digest(arrays) != kept["digest"]:
        raise ValueError("its digest does not fit")
    return arrays


def _plain(array):
    """Views bfloat16 and its like as unsigned integers: a .npy file has no place for them."""
    return array.view(f"u{array.itemsize}") if is_foreign_float(array) else array
