"""Finds the experiment that a config names: imports its function, and reads the dataclass that the function takes."""

import dataclasses
import importlib.machinery
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixjax.checks import nearest
from mixjax.runner.configs.fields import ConfigError
from mixjax.runner.configs.locating import project_root, shipped_folder
from mixjax.runner.configs.overrides import RESERVED

__all__ = ["Resolved", "resolve"]


class Resolved(NamedTuple):
    """Holds the experiment that a config names.

    Attributes:
        experiment: "module:function", as written.
        function: the function that it names.
        cls: the frozen dataclass that the function takes.
    """

    experiment: str
    function: Callable
    cls: type


def resolve(experiment: Any, path: Path) -> Resolved:
    """Imports the function that a config names as "module:function".

    The module is looked for in the config's project root (:func:`mixjax.runner.configs.locating.project_root`), then in
    the current folder, then among the installed packages, and last among the experiments that come with mixjax. The
    first two are put in front of ``sys.path``. So a user's package ``experiments`` serves the user's configs, and
    mixjax's package serves those that mixjax ships.

    Args:
        experiment: the value of the config's key, whatever its type; None where there is none.
        path: the config file.

    Returns:
        The function, and the frozen dataclass that its first parameter is annotated with.

    Raises:
        ConfigError: there is no such function, or it takes no frozen dataclass.
    """
    if experiment is None:
        raise ConfigError(f'{path}: no experiment; write experiment = "module:function" at the top')
    where = f"{path}: experiment = {experiment!r}"
    module_name, _, name = experiment.partition(":") if isinstance(experiment, str) else ("", "", "")
    if not all(module_name.split(".")) or not name:
        raise ConfigError(f'{where}: must be a string "module:function"')
    module = _import(module_name, _folders(module_name, path), where)
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if isinstance(v, types.FunctionType) and n[0] != "_"]
        # An imported function is hardly an experiment, unless the module holds no other.
        functions = [n for n in functions if getattr(module, n).__module__ == module_name] or functions
        raise ConfigError(f"{where}: {module_name} has no function {name!r}; {nearest(name, functions)}")
    return Resolved(experiment, function, _dataclass_of(function, name, where))


def _folders(module_name: str, path: Path) -> list[Path]:
    """Returns the folders in which a config's module is looked for before the installed packages."""
    folders = list(dict.fromkeys([project_root(path), Path.cwd()]))
    # A result that was moved, or written in another project, still finds mixjax's experiment. Their folder goes to the
    # front: a package of the same name that lacks the module would hide it.
    shipped = shipped_folder()
    others = [folder for folder in (*folders, *sys.path) if Path(folder).resolve() != shipped]
    if _holds(shipped, module_name) and not any(_holds(folder, module_name) for folder in others):
        folders = [shipped, *(folder for folder in folders if folder != shipped)]
    return folders


def _holds(folder: str | Path, module_name: str) -> bool:
    path = Path(folder, *module_name.split("."))
    return path.with_name(f"{path.name}.py").is_file() or path.is_dir()


def _import(module_name: str, folders: Sequence[Path], where: str) -> types.ModuleType:
    # The folders go to the front, so that a project's module wins over an installed one of the same name.
    names = [str(folder) for folder in folders]
    sys.path[:] = [*names, *(p for p in sys.path if p not in names)]
    # Without this, a module that was written while this process runs would not be found.
    importlib.invalidate_caches()
    # If a module of this name was imported from another folder before, Python would hand that one out again.
    top = module_name.partition(".")[0]
    spec, loaded = importlib.machinery.PathFinder.find_spec(top, names), sys.modules.get(top)
    if spec and loaded and loaded.__spec__ and spec.origin != loaded.__spec__.origin:
        raise ConfigError(f"{where}: this process has already imported another {top!r}, {loaded.__spec__.origin}")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # the module is there, and one that it imports is missing
        looked = " and ".join(names)
        raise ConfigError(f"{where}: no module {exc.name!r} in {looked}, nor among the installed packages") from exc


def _dataclass_of(function: Callable, name: str, where: str) -> type:
    """Returns the frozen dataclass that the function's first parameter is annotated with."""
    try:
        annotations = [hint for key, hint in typing.get_type_hints(function).items() if key != "return"]
    except NameError as exc:
        raise ConfigError(f"{where}: cannot read the annotations of {name}: {exc}") from exc
    cls = annotations[0] if annotations else None
    if not _is_frozen_dataclass(cls):
        raise ConfigError(f"{where}: {name} must take one argument annotated with a frozen dataclass, got {cls}")
    # A field of such a name could not be told from the config's own key.
    clash = {f.name for f in dataclasses.fields(cls)} & {*RESERVED, "name"}
    if clash:
        raise ConfigError(f"{where}: {cls.__name__} has a field {clash.pop()!r}, a name that configs reserve")
    return cls


def _is_frozen_dataclass(cls: Any) -> typing.TypeGuard[type]:
    # By getattr, since Python's type stubs lack the attribute that holds the arguments of `@dataclass`.
    return isinstance(cls, type) and dataclasses.is_dataclass(cls) and getattr(cls, "__dataclass_params__").frozen  # noqa: B009
