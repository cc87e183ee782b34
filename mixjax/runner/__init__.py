"""The way from a config to a result: experiments, configs, claims, results, their comparison, and where they run.

The modules load when first named, with the packages that they need::

    runs = mixjax.runner.results.read("results/quickstart")  # run name -> xarray.Dataset
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixjax.runner import (
        claims,
        comparison,
        configs,
        experiment,
        figures,
        frames,
        launch,
        metadata,
        report,
        results,
        texts,
        tracking,
    )

__all__ = [
    "claims",
    "comparison",
    "configs",
    "experiment",
    "figures",
    "frames",
    "launch",
    "metadata",
    "report",
    "results",
    "texts",
    "tracking",
]


def __getattr__(name: str) -> Any:
    """Loads a module when it is first named."""
    if name in __all__:
        return importlib.import_module(f"mixjax.runner.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
