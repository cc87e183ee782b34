"""Loss weights and sampling weights for training on several domains, as pure JAX state transitions.

Start with ``mixjax.types``, which explains the one concept, a weight rule. ``objectives``, ``rules`` and ``signals``
are imported at once. The other modules are imported on first access, so that ``import mixjax`` stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mixjax import objectives, rules, signals
from mixjax.accumulation import accumulate
from mixjax.objectives import weighted_loss
from mixjax.transforms import aggregate, get_weights, track
from mixjax.types import WeightRule

# Type checkers and editors do not run __getattr__ below; this tells them what it loads.
if TYPE_CHECKING:
    from mixjax import (
        data,
        grad_norms,
        hypergrad,
        mixing,
        probes,
        resampling,
        runner,
        samplers,
        sweeps,
        training,
    )
    from mixjax.sweeps import sweep

__version__ = "0.1.0"

__all__ = [
    "WeightRule",
    "accumulate",
    "aggregate",
    "data",
    "get_weights",
    "grad_norms",
    "hypergrad",
    "mixing",
    "objectives",
    "probes",
    "resampling",
    "rules",
    "runner",
    "samplers",
    "signals",
    "sweep",
    "sweeps",
    "track",
    "training",
    "weighted_loss",
]


def __getattr__(name: str) -> Any:
    """Imports a module of mixjax, or the function ``sweep``, on first access."""
    if name == "sweep":
        return importlib.import_module("mixjax.sweeps").sweep
    if name in __all__:
        return importlib.import_module(f"mixjax.{name}")
    raise AttributeError(f"module 'mixjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
