"""Applies overrides: ``--set key=value`` replaces one value of a config."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mixjax.runner.configs.fields import ConfigError, dotted_fields
from mixjax.runner.configs.sweep import POINTS, SWEEP_KEYS
from mixjax.runner.configs.tables import at, nest

__all__ = ["RESERVED", "assign", "check_takes_effect", "drop_replaced", "parse"]

RESERVED = ("experiment", "run", "sweep")
"""The keys at the top of a config that are not fields of the experiment's dataclass."""


def parse(text: str) -> tuple[list[str], Any]:
    """Splits one ``--set key=value`` into its keys and its value.

    Args:
        text: such as "sweep.seeds=100".

    Returns:
        The dotted key's parts, and the value. A value that is not valid TOML counts as a string.

    Raises:
        ConfigError: no key, or no "=".
    """
    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: write key=value, for example --set sweep.seeds=100")
    try:
        # A bare value is not a TOML document, so it gets a key.
        return keys, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return keys, value.strip()


def assign(table: Any, keys: Sequence[str], value: Any, where: str) -> None:
    """Puts a value at dotted keys of a document, in place, and makes the tables on the way that are missing.

    Raises:
        ConfigError: a list has no such place, or a value that is no table stands on the way.
    """
    if keys[0] == "run" and len(keys) > 1 and "run" not in table:
        raise ConfigError(f"{where}: the config has no [[run]] tables; give the value without run.{keys[1]}")
    try:
        for key in keys[:-1]:
            table = table[int(key)] if isinstance(table, list) else table.setdefault(key, {})
        table[int(keys[-1]) if isinstance(table, list) else keys[-1]] = value
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise ConfigError(f"{where}: the config has no such place") from exc


def drop_replaced(raw: Mapping[str, Any], keys: Sequence[str], value: Any, cls: type) -> None:
    """Removes from a config's ``[sweep]``, in place, the axes and columns of fields that an override varies elsewhere.

    A field varies in one place: as an axis, in ``[sweep.points]`` or in ``[sweep.random]``. The override decides where.

    Args:
        raw: the document of the file.
        keys: the override's dotted key.
        value: its value.
        cls: the experiment's dataclass.
    """
    sweep, given = raw.get("sweep", {}), _swept(nest(keys, value).get("sweep", {}), cls)
    for place in given:
        varied_elsewhere = {name for other, names in given.items() if other != place for name in names}
        replaced = varied_elsewhere & set(_swept(sweep, cls)[place])
        for name in replaced:
            *tables, last = name.split(".")
            del at(sweep, tables if place == "axes" else [place, *tables])[last]
        # A table of points that has lost its last column would only be in the way.
        if replaced and place in POINTS and not _swept(sweep, cls)[place]:
            del sweep[place]


def _swept(sweep: Mapping[str, Any], cls: type) -> dict[str, dict[str, Any]]:
    """Returns the dotted fields that a table [sweep] varies, with their values, for each place in it."""
    fields = {f.name for f in dataclasses.fields(cls)}
    tables = {"axes": {key: value for key, value in sweep.items() if key not in (*SWEEP_KEYS, *POINTS)}}
    tables |= {key: sweep.get(key, {}) for key in POINTS}
    return {
        place: dotted_fields({key: value for key, value in table.items() if key in fields}, cls)
        for place, table in tables.items()
    }


def check_takes_effect(raw: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Checks that no axis and no run replaces the base value that an override sets.

    Raises:
        ConfigError: one of them does; the message has the override that would have an effect.
    """
    sweep = raw.get("sweep", {})
    places = {"sweep": sweep, **{f"sweep.{key}": sweep.get(key, {}) for key in POINTS}}
    # A field may share its name with a key of [sweep], such as chunk: what [sweep] has there is not an axis.
    can_be_axis = keys[0] not in (*RESERVED, *SWEEP_KEYS, *POINTS)
    for place, table in places.items():
        if can_be_axis and at(table, keys) is not None:
            name = ".".join(keys)
            raise ConfigError(f"{where}: has no effect, [sweep] replaces {name!r}; use --set {place}.{name}=[...]")
    for number, run in enumerate(raw.get("run", [])):
        if at(run, keys) is not None and keys[0] != "name":
            instead = ".".join(["run", str(number), *keys])
            name = run.get("name")
            raise ConfigError(f"{where}: has no effect on [[run]] {name!r}, which sets its own; use --set {instead}=")
