"""Says what the reference shows: the public names of mixjax, and the ids that they have on the site."""

from __future__ import annotations

import functools
import importlib
import inspect
from types import ModuleType
from typing import Any

__all__ = ["MODULES", "find", "id_of", "public"]

MODULES = (
    "mixjax",
    "mixjax.types",
    "mixjax.rules",
    "mixjax.rules.base",
    "mixjax.rules.states",
    "mixjax.signals",
    "mixjax.samplers",
    "mixjax.resampling",
    "mixjax.grad_norms",
    "mixjax.grad_norms.nnx",
    "mixjax.hypergrad",
    "mixjax.objectives",
    "mixjax.training",
    "mixjax.probes",
    "mixjax.mixing",
    "mixjax.domains",
    "mixjax.saving",
    "mixjax.meshes",
    "mixjax.live",
    "mixjax.design",
    "mixjax.design.laws",
    "mixjax.statistics",
    "mixjax.sweeps",
    "mixjax.sweeps.search",
    "mixjax.runner",
    "mixjax.runner.configs",
    "mixjax.runner.experiment",
    "mixjax.runner.claims",
    "mixjax.runner.results",
    "mixjax.runner.report",
    "mixjax.runner.frames",
    "mixjax.runner.texts",
    "mixjax.runner.comparison",
    "mixjax.runner.tracking",
    "mixjax.runner.metadata",
    "mixjax.runner.site_page",
    "mixjax.runner.sites",
    "mixjax.runner.launch",
    "mixjax.data",
    "mixjax.checks",
)
"""The modules that the reference has a page for, from what a user meets first to what few need."""


@functools.cache
def public() -> dict[str, str]:
    """Lists the public names, without those of modules.

    Returns:
        Name with its module, such as "mixjax.rules.erma" -> the id of its heading. An object that several modules offer
        is listed under the first one.
    """
    found: dict[str, str] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            one = id_of(value, f"{module_name}.{name}")
            if not isinstance(value, ModuleType) and one not in found.values():
                found[f"{module_name}.{name}"] = one
    return found


def id_of(value: Any, name: str) -> str:
    """Returns the path of an object's definition, which is its id on the site; of data, which know none, the name."""
    if isinstance(value, ModuleType):
        return value.__name__
    if inspect.isroutine(value) or inspect.isclass(value) or hasattr(value, "__wrapped__"):
        return f"{value.__module__}.{value.__qualname__}"
    return name


def find(target: str, module: str, owner: str = "") -> str | None:
    """Finds what a role of a docstring names.

    Args:
        target: the text of the role, such as "mixjax.sweep", "Plan.publish" or "fit".
        module: the module of the docstring.
        owner: the class whose docstring it is, or that of its method; "" for none.

    Returns:
        The id on the site of what is named; None where the site does not show it.

    Raises:
        LookupError: nothing has this name.
    """
    # A short name is one of the class, of the module, or of a package around it.
    around = module.split(".")
    packages = [".".join([*around[:length], ""]) for length in range(len(around), -1, -1)]
    for prefix in [f"{module}.{owner}.", *packages] if owner else packages:
        try:
            path = _resolved(prefix + target)
        except (ImportError, AttributeError):
            continue
        classes = set(public().values())
        # A method stands below its class.
        return path if {path, path.rpartition(".")[0]} & classes or path in MODULES else None
    raise LookupError(f"{module}: a docstring names {target}, which is nowhere")


def _resolved(path: str) -> str:
    """Returns the id of what an absolute path names."""
    first, *rest = path.split(".")
    value: Any = importlib.import_module(first)
    for name in rest:
        holder = value
        if inspect.isclass(holder):
            # The docstring of a class describes its fields, which have no headings of their own.
            if name in getattr(holder, "__annotations__", {}):
                return id_of(holder, "")
            getattr(holder, name)  # or else it has no such method
            return f"{id_of(holder, '')}.{name}"
        # An attribute before a module: a package may offer a function that is called as the module it comes from.
        if not hasattr(holder, name):
            importlib.import_module(f"{holder.__name__}.{name}")
        value = getattr(holder, name)
    return id_of(value, path)
