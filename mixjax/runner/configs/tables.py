"""Looks up, merges and splits nested tables of plain values, as TOML has them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["at", "dotted", "merge", "nest", "own", "shared"]


def nest(keys: Sequence[str], value: Any) -> Any:
    """Makes the smallest document that holds a value at dotted keys.

    A key that is a number stands for a list; the list made here has one element, whatever the number.
    """
    for key in reversed(keys):
        value = [value] if key.isdecimal() else {key: value}
    # A document is a table: keys that begin with a number have no place in it.
    return value if isinstance(value, dict) else {}


def at(table: Any, keys: Sequence[str]) -> Any:
    """Returns the value at dotted keys, or None where there is none."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def dotted(
    table: Mapping[str, Any], is_leaf: Callable[[str], bool] = lambda name: False, prefix: str = ""
) -> dict[str, Any]:
    """Flattens nested tables into one, with dotted keys.

    Args:
        table: values and tables by key.
        is_leaf: called with a dotted key at which there is a table; True keeps that table whole, as one value.
        prefix: the text that every dotted key begins with.

    Returns:
        Dotted key -> value.

    Example:
        >>> dotted({"steps": 5, "rule": {"gamma": 0.1}})
        {'steps': 5, 'rule.gamma': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not is_leaf(name):
            found |= dotted(value, is_leaf, f"{name}.")
        else:
            found[name] = value
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one document over another: tables merge, any other value replaces the one below it."""
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_tables else value
    return merged


def shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the values that all tables have in common, also inside the tables that they hold."""
    common = {}
    in_all = [key for key in tables[0] if all(key in table for table in tables)]
    for key in in_all:
        values = [table[key] for table in tables]
        # Compared by text, since a NaN is not equal to itself.
        if len({repr(value) for value in values}) == 1:
            common[key] = values[0]
        elif all(isinstance(value, dict) for value in values):
            inner = shared(values)
            if inner:
                common[key] = inner
    return common


def own(table: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a table that are not common to all tables, as :func:`shared` found these.

    Laid over the common values by :func:`merge`, they give the table again.
    """
    rest = {key: value for key, value in table.items() if key not in common}
    for key, value in common.items():
        if isinstance(value, dict):
            inner = own(table[key], value)
            if inner:
                rest[key] = inner
    return rest
