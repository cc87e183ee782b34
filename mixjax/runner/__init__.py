"""Leads from a config to a result: reads configs, runs experiments, checks claims, keeps and compares results.

Each module is imported when it is first named, and with it the packages that it needs::

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
        frames,
        launch,
        loading,
        metadata,
        report,
        results,
        site_page,
        sites,
        texts,
        tracking,
    )
    from mixjax.runner.figures import sweep_figure

__all__ = [
    "claims",
    "comparison",
    "configs",
    "experiment",
    "frames",
    "launch",
    "loading",
    "metadata",
    "report",
    "results",
    "site_page",
    "sites",
    "sweep_figure",
    "texts",
    "tracking",
]


def __getattr__(name: str) -> Any:
    """Loads a module, or :func:`sweep_figure`, when it is first named."""
    if name == "sweep_figure":
        return importlib.import_module("mixjax.runner.figures").sweep_figure
    if name in __all__:
        return importlib.import_module(f"mixjax.runner.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
