"""Loss weights and sampling weights for training on several domains, as pure JAX state transitions.

Start with ``mixjax.types``, which explains the one concept, a weight rule. Every module is imported when it is first
named, so ``import mixjax`` takes no time, and the parts that are plain NumPy do not load JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors do not run __getattr__ below; this tells them what it loads.
if TYPE_CHECKING:
    from mixjax import (
        data,
        design,
        domains,
        grad_norms,
        hypergrad,
        live,
        mixing,
        objectives,
        probes,
        resampling,
        rules,
        runner,
        samplers,
        saving,
        signals,
        sweeps,
        training,
    )
    from mixjax.accumulation import accumulate
    from mixjax.objectives import weighted_loss
    from mixjax.sweeps import sweep
    from mixjax.transforms import aggregate, get_weights, track
    from mixjax.types import WeightRule

__version__ = "0.1.0"

__all__ = [
    "WeightRule",
    "accumulate",
    "aggregate",
    "data",
    "design",
    "domains",
    "get_weights",
    "grad_norms",
    "hypergrad",
    "live",
    "mixing",
    "objectives",
    "probes",
    "resampling",
    "rules",
    "runner",
    "samplers",
    "saving",
    "signals",
    "sweep",
    "sweeps",
    "track",
    "training",
    "weighted_loss",
]

_HOMES = {
    "WeightRule": "types",
    "accumulate": "accumulation",
    "aggregate": "transforms",
    "get_weights": "transforms",
    "sweep": "sweeps",
    "track": "transforms",
    "weighted_loss": "objectives",
}
# Modules that can be named after `import mixjax` as well, although their public names stand above.
_OTHERS = ("accumulation", "checks", "files", "meshes", "numbers", "placement", "statistics", "transforms", "types")


def __getattr__(name: str) -> Any:
    """Imports a module of mixjax, or a core function from its module, when it is first named."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"mixjax.{_HOMES[name]}"), name)
        # Kept, so that the next access is an ordinary one.
        globals()[name] = value
        return value
    if name in __all__ or name in _OTHERS:
        return importlib.import_module(f"mixjax.{name}")
    raise AttributeError(f"module 'mixjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
