"""Repeats a training function over seeds and hyperparameters, many runs in one compiled program.

``train`` is an ordinary pure function that does one run: one seed at one point of the hyperparameters. :func:`sweep`
compiles it once for a fixed number of runs, called a chunk, and splits the chunk over all devices. It calls that
program until all runs are done. The last chunk is padded, and its padding dropped.

- With a fixed ``chunk``, a longer sweep is the same program called more often, and a seed's run does not depend on the
  sweep it is in.
- With a ``checkpoint`` folder, finished chunks are kept on disk, and a sweep that was killed goes on from there.
  Several hosts share the chunks through that folder.
- :class:`Sweep` holds the arguments of a sweep. :func:`run` runs it, :func:`dry_run` says what it would cost, and
  :mod:`search` lets optuna choose its points.

To read the code, begin with ``spec`` (the arguments) and ``loop`` (chunk after chunk). Each layer below ``loop`` uses
the next: ``executor`` computes a chunk, ``prepared`` checks the arguments, ``programs`` moves runs to the devices and
back, ``lowering`` traces and compiles. ``saving``, ``checkpoints`` and ``blocks`` keep chunks on disk.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mixjax.stopping import Preempted, preemptible
from mixjax.sweeps.dry_run import DryRun, dry_run
from mixjax.sweeps.host_loops import HostLoop, HostRun
from mixjax.sweeps.loop import run, sweep
from mixjax.sweeps.points import Labels, random_points
from mixjax.sweeps.progress import Record
from mixjax.sweeps.rounds import in_rounds
from mixjax.sweeps.segments import Segments, diverged
from mixjax.sweeps.spec import Sweep

if TYPE_CHECKING:
    from mixjax.sweeps import search

__all__ = [
    "DryRun",
    "HostLoop",
    "HostRun",
    "Labels",
    "Preempted",
    "Record",
    "Segments",
    "Sweep",
    "diverged",
    "dry_run",
    "in_rounds",
    "preemptible",
    "random_points",
    "run",
    "search",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Loads what few need when it is first named: :mod:`search`, for which optuna is an extra, and old names."""
    if name == "search":
        return importlib.import_module("mixjax.sweeps.search")
    if name == "plan":
        return importlib.import_module("mixjax.sweeps.deprecated").plan
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
