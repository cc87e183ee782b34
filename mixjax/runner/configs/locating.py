"""Finds configs, the projects that they belong to, and the experiments that come with mixjax.

In a checkout, the configs and experiments of mixjax are the folders ``configs`` and ``experiments`` beside the package.
A wheel holds both in ``mixjax/_shipped``: a package called ``experiments`` among the installed ones would hide, or be
hidden by, a user's own.
"""

from __future__ import annotations

from pathlib import Path

from mixjax.checks import closest
from mixjax.runner.configs.fields import ConfigError

__all__ = ["config_path", "project_root", "shipped_folder", "shipped_name", "shipped_names"]


def shipped_folder() -> Path:
    """Returns the folder that holds the ``configs`` and the ``experiments`` of mixjax."""
    package = Path(__file__).resolve().parents[2]
    in_wheel = package / "_shipped"
    return in_wheel if in_wheel.is_dir() else package.parent


def shipped_names() -> list[str]:
    """Lists the names of the configs that come with mixjax.

    Returns:
        Paths below the folder of configs, without ``.toml``, such as "quickstart" or "live_mix/text"; sorted.
    """
    folder = shipped_folder() / "configs"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def shipped_name(path: Path) -> str | None:
    """Returns the name of a config that comes with mixjax.

    Args:
        path: the file of any config.

    Returns:
        The name, as in :func:`shipped_names`; None for a config of somebody else.
    """
    path, folder = path.resolve(), shipped_folder() / "configs"
    return path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else None


def config_path(given: Path) -> Path:
    """Finds a config by its path, or by its name if it comes with mixjax.

    A file of the user's wins. A name may be written as in a checkout, ``configs/quickstart.toml``, and may leave its
    folder out where only one config is called so.

    Args:
        given: a path, or a name of :func:`shipped_names`.

    Returns:
        The path of a file.

    Raises:
        ConfigError: a name without its folder that several configs have.
        FileNotFoundError: there is neither such a file nor such a name.

    Example:
        >>> config_path(Path("quickstart")).name
        'quickstart.toml'
    """
    if given.is_file():
        return given
    known = shipped_names()
    name = given.as_posix().removeprefix("configs/").removesuffix(".toml")
    found = [name] if name in known else [one for one in known if one.rpartition("/")[2] == name]
    if len(found) > 1:
        raise ConfigError(f"{given}: several configs are called so; write one of {', '.join(found)}")
    if not found:
        near = closest(name, known)
        guess = "" if near is None else f"; did you mean {near!r}?"
        raise FileNotFoundError(
            f"{given}: no such config file, nor a config of this name; `mixjax list` shows all{guess}"
        )
    return shipped_folder() / "configs" / f"{found[0]}.toml"


def project_root(path: Path) -> Path:
    """Returns the root of the project that a config belongs to.

    Args:
        path: the file of the config.

    Returns:
        For a config of mixjax, the folder of :func:`shipped_folder`. For others the nearest folder above the file that
        has a ``pyproject.toml``, or else the file's own folder.
    """
    path = path.resolve()
    # Tested first: an installed mixjax may lie below a user's project, in its virtual environment.
    if shipped_name(path) is not None:
        return shipped_folder()
    return next((parent for parent in path.parents if (parent / "pyproject.toml").is_file()), path.parent)
