"""Describes all that a sweep's results depend on, to be compared with the chunks in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax

from mixjax.sweeps.arrays import digest
from mixjax.sweeps.keys import bits
from mixjax.sweeps.metrics import segment_shapes
from mixjax.sweeps.prepared import Prepared
from mixjax.sweeps.runs import Runs
from mixjax.sweeps.segments import Segments

__all__ = ["described_runs", "identity_of"]


def identity_of(prepared: Prepared, chunk: int | str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a sweep by named values, so that an error can say which of them have changed.

    Args:
        prepared: the sweep.
        chunk: the number of runs in a chunk as the user gave it, or "auto".
        own: name -> JSON value that the user wants compared too. An error names these first, since the user knows them.

    Returns:
        Name -> JSON value. Data and code are there as digests.

    Raises:
        ValueError: ``own`` has a name that this function uses too.
    """
    runs, train = prepared.runs, prepared.train
    # With "auto" the size of a chunk may differ from call to call, and the code with it: compared at one fixed size.
    program = prepared.build(prepared.map_slots if chunk == "auto" else int(chunk))
    described = {
        **described_runs(runs),
        "chunk": chunk if chunk == "auto" else int(chunk),
        "vectorize": prepared.vectorize,
        # Random keys are compared by their words.
        "data": digest({str(i): bits(leaf) for i, leaf in enumerate(jax.tree.leaves(prepared.data))}),
        "program (the code of train)": program.fingerprint,
    }
    if isinstance(train, Segments):
        described |= {"segments": train.num, "stop": _stop_fingerprint(train, prepared)}
        # Folders of sweeps without calls from the host, which know no other, stay usable.
        described |= {} if train.calls is None else {"calls": train.calls}
    # Another version or another device may round differently: one result should not mix chunks of both.
    described |= {
        "jax": jax.__version__,
        "devices": f"{len(prepared.devices)} x {prepared.devices[0].device_kind}",
    }
    taken = sorted(set(described) & set(own))
    if taken:
        raise ValueError(f"identity: {taken} are compared anyway; give other names.")
    return dict(own) | described


def described_runs(runs: Runs) -> dict[str, Any]:
    """Describes which runs a sweep has, by name, as JSON values.

    Args:
        runs: the runs.

    Returns:
        The axes, the points, the names of labels and the seeds.
    """
    described = {
        "axes": runs.axes,
        "points": runs.points,
        "labels": runs.label_names,
        "seeds": runs.shape[-1],
        "first_seed": runs.first_seed,
    }
    # Folders of sweeps with paired seeds, which know no other, stay usable.
    return described if runs.paired else described | {"paired": False}


def _stop_fingerprint(train, prepared):
    """Returns a digest of the code of ``stop``, which is called between segments and is no part of the program."""
    if train.stop is None:
        return None
    metrics = segment_shapes(train, prepared.hparams, prepared.data_shapes).metrics
    return hashlib.sha256(jax.jit(train.stop).lower(metrics).as_text().encode()).hexdigest()
