"""From a config to a result: experiments, configs, claims, results, their comparison, and where they run.

The modules load when first named, with what they need: ``mixjax.runner.results.read("results/quickstart")``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixjax.runner import claims, comparison, configs, experiment, figures, frames, launch, results, tracking

__all__ = ["claims", "comparison", "configs", "experiment", "figures", "frames", "launch", "results", "tracking"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"mixjax.runner.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
