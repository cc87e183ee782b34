"""Seeds, hyperparameters and rules in one XLA program.

``train`` is an ordinary pure function of one run. :func:`sweep` compiles it once for a fixed number of runs, a chunk,
split over all devices, and calls that program until all runs are done; the last chunk is padded and its padding
dropped. With a fixed ``chunk`` a longer sweep is therefore the same program called more often, and a seed's run does
not depend on the sweep it is in. With a ``checkpoint`` folder, finished chunks are kept on disk and a sweep that was
killed goes on from there; several hosts share the chunks through that folder.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mixjax.sweeps.loop import sweep
from mixjax.sweeps.plans import Plan, plan
from mixjax.sweeps.runs import Labels, random_points
from mixjax.sweeps.segments import Segments, diverged

if TYPE_CHECKING:
    from mixjax.sweeps import search

__all__ = ["Labels", "Plan", "Segments", "diverged", "plan", "random_points", "search", "sweep"]


def __getattr__(name: str) -> Any:
    if name == "search":
        return importlib.import_module("mixjax.sweeps.search")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
