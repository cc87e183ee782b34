"""Describes training runs that are ordinary Python loops, such as those that read a live mix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HostLoop", "HostRun"]


class HostRun(NamedTuple):
    """Holds what one run of a :class:`HostLoop` gets.

    Attributes:
        seed: the run's seed.
        hparams: hyperparameter -> its value: a number, a string, or a list for a vector.
        data: the sweep's data, as they were given.
        scratch: a folder for checkpoints. A run that was killed finds there what it had written; when the run is done,
            the folder is deleted.
        files: a folder for what is to be kept beside the metrics, such as a ledger.
        report: ``report(part)`` tells how much of the run is done, from 0 to 1.
    """

    seed: int
    hparams: dict[str, Any]
    data: Any
    scratch: Path
    files: Path
    report: Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class HostLoop:
    """Marks a training run that is an ordinary Python loop, for a sweep that calls it once for each run.

    Such a loop may read a live mix, write a ledger and save checkpoints. Its runs go one after the other, in this
    process. Where training is a pure function give that function itself: then all runs are one compiled program.

    With a ``checkpoint`` folder a sweep that was killed goes on with the run that was not done, and that run with what
    it had saved in its scratch folder. The folder is compared with the sweep by its values, its data and the loop's
    name. A change of the loop's code is not seen.

    Args:
        train: ``train(run: HostRun) -> metrics``, a dict of arrays, or of dicts of arrays, of the same shapes in all
            runs.

    Example:
        >>> import mixjax
        >>> def train(run):
        ...     (run.files / "note.txt").write_text("the run's own file")
        ...     return {"x": run.seed * run.hparams["scale"]}
        >>> mixjax.sweep(mixjax.sweeps.HostLoop(train), seeds=3, axes={"scale": [1.0, 2.0]}).x.values.tolist()
        [[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]]
    """

    train: Callable[[HostRun], Mapping[str, Any]]
