"""Says how to install the optional packages that a part of mixjax needs."""

from __future__ import annotations

import importlib.metadata
import re

__all__ = ["install_command"]

# The modules whose packages have other names for pip.
_NAMES = {"orbax": "orbax-checkpoint", "sklearn": "scikit-learn"}


def install_command(extra: str, *modules: str) -> str:
    """Writes the command that installs modules that are missing, and all else that an extra of mixjax lacks.

    The command names the packages themselves, not ``mixjax[extra]``: pip would look for mixjax on an index, where a
    copy that was installed from a wheel or from a checkout is not.

    Args:
        extra: a name of ``optional-dependencies`` in ``pyproject.toml``.
        *modules: the modules that could not be imported.

    Returns:
        A command for a shell.

    Example:
        >>> install_command("experiments", "not_installed")
        'pip install not-installed'
    """
    missing = [name for name in _packages_of(extra) if not _is_installed(name)]
    # A module is named even where its package seems to be there, since it could not be imported.
    packages = {*map(_package_of, modules), *missing}
    return " ".join(["pip install", *sorted(packages)])


def _packages_of(extra: str) -> list[str]:
    try:
        requirements = importlib.metadata.requires("mixjax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    # A requirement reads `scikit-learn>=1.5; extra == "experiments"`.
    of_extra = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    names = [re.match(r"[\w.-]+", text) for text in requirements if of_extra.search(text.partition(";")[2])]
    return [name[0] for name in names if name]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _package_of(module: str) -> str:
    top = module.partition(".")[0]
    return _NAMES.get(top, top.replace("_", "-"))
