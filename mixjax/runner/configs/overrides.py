"""`--set key=value`: one value of a config replaced."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mixjax.runner.configs.fields import ConfigError
from mixjax.runner.configs.sweep import POINTS, SWEEP_KEYS
from mixjax.runner.configs.tables import at

RESERVED = ("experiment", "run", "sweep")  # top-level keys that are not fields of the experiment's dataclass


def parse(text: str) -> tuple[list[str], Any]:
    """Splits one `--set key=value` into its keys and its value."""
    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: write key=value, for example --set sweep.seeds=100")
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return keys, value.strip()


def assign(table: Any, keys: Sequence[str], value: Any, where: str) -> None:
    """Puts a value at dotted keys."""
    try:
        for key in keys[:-1]:
            table = table[int(key)] if isinstance(table, list) else table.setdefault(key, {})
        table[int(keys[-1]) if isinstance(table, list) else keys[-1]] = value
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise ConfigError(f"{where}: the config has no such place") from exc


def check_takes_effect(raw: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """A base value that a run or an axis replaces anyway is a mistake."""
    sweep = raw.get("sweep", {})
    for table, place in ((sweep, "sweep"), *((sweep.get(key, {}), f"sweep.{key}") for key in POINTS)):
        if keys[0] not in RESERVED and at(table, keys) is not None and keys[0] not in (*SWEEP_KEYS, *POINTS):
            name = ".".join(keys)
            raise ConfigError(f"{where}: has no effect, [sweep] replaces {name!r}; use --set {place}.{name}=[...]")
    for place, table in enumerate(raw.get("run", [])):
        name, table = table.get("name"), at(table, keys)
        if table is not None and keys[0] != "name":
            instead = ".".join(["run", str(place), *keys])
            raise ConfigError(f"{where}: has no effect on [[run]] {name!r}, which sets its own; use --set {instead}=")
