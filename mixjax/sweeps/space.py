"""Predicts how much room the checkpoints of a sweep take, and compares it with what a disk has free."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mixjax.sweeps.keys import with_words
from mixjax.sweeps.metrics import metric_shapes
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.segments import Segments

__all__ = ["check_space", "checkpoint_bytes"]


def checkpoint_bytes(prepared: Prepared, chunk: int | str) -> int:
    """Predicts the bytes that the checkpoints of a sweep take on disk at least.

    Each run's metrics are kept. For :class:`Segments`, a new carry of a chunk is written before the old one is removed,
    so that two count.

    Args:
        prepared: the sweep.
        chunk: the number of runs in a chunk as the user gave it; with "auto" one run a device counts.

    Returns:
        A number of bytes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax.sweeps import Sweep
        >>> train = Segments(lambda key, *_: jnp.zeros(100), lambda x, *_: (x, {"y": x[:1]}), num=25)
        >>> checkpoint_bytes(Prepared.of(Sweep(train, seeds=3, chunk=2)), 2)  # 3 x 25 numbers, and 2 x 2 x 100
        1900
    """
    train, runs = prepared.train, prepared.runs
    total = runs.num * _bytes(metric_shapes(train, prepared.hparams, prepared.data_shapes))
    if isinstance(train, Segments):
        carry = jax.eval_shape(
            lambda *arguments: with_words(train.init(*arguments)),
            jax.random.key(0),
            prepared.hparams,
            prepared.data_shapes,
        )
        slots = len(prepared.devices) if chunk == "auto" or prepared.is_called_from_host else int(chunk)
        total += 2 * min(slots, runs.largest_group) * _bytes(carry)
    return total


def check_space(folder: Path, needed: Mapping[str, int]) -> None:
    """Checks that a disk has room for checkpoints, before anything is computed.

    What the folder holds already counts as free, since it is part of what is needed.

    Args:
        folder: where they will be; it need not exist.
        needed: what needs room -> bytes, as :func:`checkpoint_bytes` predicts them.

    Raises:
        OSError: there is too little room.
    """
    total = sum(needed.values())
    place = next(path for path in (folder, *folder.parents) if path.exists())
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    free = shutil.disk_usage(place).free
    if total > free + there:
        most = max(needed, key=lambda name: needed[name])
        raise OSError(
            f"{folder}: checkpoints will need {_shown(total)} on disk, most of it for {most!r}, and {_shown(free)} are "
            "free; give a folder on another disk, a smaller chunk or fewer runs"
        )


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _shown(number: int) -> str:
    return f"{number / 1e9:.3g} GB"
