"""Nested tables of plain values, as TOML has them."""

from collections.abc import Mapping, Sequence
from typing import Any


def nest(keys: Sequence[str], value: Any) -> Any:
    """The smallest document that holds `value` at `keys`; a number is a place in a list."""
    for key in reversed(keys):
        value = [value] if key.isdecimal() else {key: value}
    return value if isinstance(value, dict) else {}


def at(table: Any, keys: Sequence[str]) -> Any:
    """What stands at dotted keys, or None."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, table by table."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all tables hold, in the tables inside them too."""
    common = {}
    for key in (key for key in tables[0] if all(key in table for table in tables)):
        values = [table[key] for table in tables]
        if len({repr(value) for value in values}) == 1:  # a NaN is not equal to itself
            common[key] = values[0]
        elif all(isinstance(value, dict) for value in values) and (inner := shared(values)):
            common[key] = inner
    return common


def own(table: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a table holds besides; merging it into what is shared gives the table."""
    rest = {key: value for key, value in table.items() if key not in shared}
    for key, value in shared.items():
        if isinstance(value, dict) and (inner := own(table[key], value)):
            rest[key] = inner
    return rest
