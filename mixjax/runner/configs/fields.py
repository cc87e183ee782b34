"""Looks up the fields of an experiment's frozen dataclass by name and type, and checks their values with pydantic."""

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixjax.checks import nearest, requires
from mixjax.runner.configs.tables import dotted

with requires("experiments", "mixjax.runner.configs"):
    import pydantic

__all__ = [
    "ConfigError",
    "as_json",
    "check_keys",
    "dotted_fields",
    "field_hints",
    "field_type",
    "from_json",
    "is_dataclass",
    "is_label",
    "is_number",
    "is_vector",
    "label_names",
    "meant",
    "replace",
    "validate",
]

# pydantic names the place of a value by the keys that lead to it. Among the keys it puts the alternative of a union
# that it tried, such as "float" or "literal['auto']". A reader wants the keys only.
_ALTERNATIVE = re.compile(r"constrained-|literal\[|(int|float|str|bool|tuple|list|dict)(\[|$)")


class ConfigError(ValueError):
    """Reports a mistake in a config file or in a ``--set``; the message names the key and where it stands."""


def check_keys(table: Mapping[str, Any], classes: Sequence[type], where: str, extra: Sequence[str] = ()) -> None:
    """Checks that each key is a field of one of the dataclasses, also in tables for nested dataclasses.

    Args:
        table: values by key.
        classes: the dataclasses.
        where: where the table stands, for the message.
        extra: keys that the message suggests too. They are not among those of ``table``.

    Raises:
        ConfigError: an unknown key.
    """
    # A key may belong to one of several dataclasses where a field's type is a union of them.
    hints = {f.name: field_hints(cls)[f.name] for cls in classes for f in dataclasses.fields(cls) if f.init}
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {key!r}; {meant(key, classes, [*extra, *hints])}")
        inner = list(_dataclasses_in(hints[key]))
        for item in value if isinstance(value, list) else [value]:
            if inner and isinstance(item, dict):
                check_keys(item, inner, f"{where}: {key}")


def meant(key: str, classes: Sequence[type], known: Sequence[str]) -> str:
    """Words the end of a message about an unknown key: a field of that name in a nested table, or the nearest key."""
    inside = [f"{name}.{key}" for cls in classes for name in _tables_with(cls, key)]
    return f"did you mean {inside[0]!r}?" if inside else nearest(key, known)


def _tables_with(cls: type, key: str) -> Iterator[str]:
    """Yields the dotted names of nested dataclasses that have a field of this name."""
    for field in dataclasses.fields(cls):
        hint = field_hints(cls)[field.name]
        if is_dataclass(hint):
            if any(inner.name == key for inner in dataclasses.fields(hint)):
                yield field.name
            yield from (f"{field.name}.{inner}" for inner in _tables_with(hint, key))


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


def is_number(hint: Any) -> bool:
    """Tells whether a field of this type holds one number."""
    # A bool does not count as a number, since a flag chooses a branch of the program.
    return _members(hint) <= {int, float}


def is_vector(hint: Any) -> bool:
    """Tells whether a field of this type holds a list of numbers."""
    return all(
        typing.get_origin(each) in (tuple, list)
        and all(is_number(inner) for inner in typing.get_args(each) if inner is not ...)
        for each in _members(hint)
    )


def is_label(hint: Any) -> bool:
    """Tells whether a field of this type holds a text, such as the name of a method."""
    return all(each is str or _choices(each) for each in _members(hint))


def label_names(hint: Any) -> list[str]:
    """Returns the texts that a field of labels can hold, in order; none where it takes any text."""
    return [name for each in _members(hint) for name in _choices(each)]


def _choices(hint: Any) -> list[str]:
    """Returns the texts of a ``Literal`` that has texts only, and none of any other type."""
    if typing.get_origin(hint) is not typing.Literal:
        return []
    names = list(typing.get_args(hint))
    return names if all(isinstance(name, str) for name in names) else []


def _members(hint: Any) -> set[Any]:
    """Returns the types that a value of a field may have, apart from None; a union has several."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = set(typing.get_args(hint)) if is_union else {hint}
    # A field that can only be None holds nothing else.
    return members - {type(None)} or {type(None)}


def is_dataclass(hint: Any) -> bool:
    """Tells whether a field of this type holds a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def dotted_fields(table: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Returns the values that a table gives for fields. A field of a nested dataclass has a dotted name.

    Args:
        table: values by key. A table for a field of another type, such as ``{start, stop, num}``, is one value.
        cls: the dataclass.

    Returns:
        Dotted field name -> value.
    """
    return dotted(table, is_leaf=lambda name: not is_dataclass(field_type(cls, name)))


def field_type(cls: Any, name: str) -> Any:
    """Returns the type of a dataclass's field, by the field's dotted name."""
    for part in name.split("."):
        cls = field_hints(cls)[part]
    return cls


@functools.lru_cache(maxsize=64)
def field_hints(cls: Any) -> Mapping[str, Any]:
    """Returns the types of a dataclass's fields by name: Python works them out anew, from texts, at every question."""
    return types.MappingProxyType(typing.get_type_hints(cls))


# Pydantic builds a validator in milliseconds, and a config's values are checked one at a time.
_adapter_of = functools.lru_cache(maxsize=64)(pydantic.TypeAdapter)


def _adapter(cls: type, where: str) -> pydantic.TypeAdapter:
    try:
        return _adapter_of(cls)
    except pydantic.PydanticSchemaGenerationError as exc:
        raise ConfigError(
            f"{where}: {cls.__name__} has a field that TOML cannot give: {exc.message.splitlines()[0]}"
        ) from exc


def validate(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """Builds a dataclass from a table of its fields.

    The types are strict (no "3" for 3), except that TOML's lists make tuples and its integers make floats.

    Args:
        cls: the dataclass.
        table: values by field name.
        where: where the table stands, for the message.

    Returns:
        An instance of ``cls``.

    Raises:
        ConfigError: a value of another type, or one that the dataclass refuses.
    """
    try:
        # By way of JSON: in pydantic's strict mode a list makes a tuple only there. TOML's dates become texts.
        return _adapter(cls, where).validate_json(json.dumps(table, default=str), strict=True)
    except pydantic.ValidationError as exc:
        raise ConfigError(f"{where}: " + "; ".join(map(_mistake, exc.errors()))) from exc


def from_json(kind: Any, text: str) -> Any:
    """Reads JSON whose content must be of a type, such as ``list[Claim]``.

    Args:
        kind: the type; dataclasses take tables.
        text: the JSON.

    Returns:
        An instance of the type.

    Raises:
        ValueError: no JSON, or content of another type; the message names the place.
    """
    try:
        return _adapter_of(kind).validate_json(text, strict=True)
    except pydantic.ValidationError as exc:
        raise ValueError(_mistake(exc.errors()[0])) from exc


def _mistake(error: Any) -> str:
    """Says in one phrase where a mistake stands, what it is and which value made it."""
    first, *rest = [str(part) for part in error["loc"]] or [""]
    place = ".".join([first, *(part for part in rest if not _ALTERNATIVE.match(part))])
    said = error["msg"].removeprefix("Value error, ")
    message = f"{place}: {said}" if place else said
    # A missing key has no input to show, and a mistake without a place would show the whole table.
    return message if error["type"] == "missing" or not error["loc"] else f"{message}, got {error['input']!r}"


def as_json(values: Any) -> dict[str, Any]:
    """Turns a dataclass into plain types of TOML.

    Args:
        values: an instance of a dataclass.

    Returns:
        Field name -> value. A None is left out: TOML has no null, so it can only be the field's default.
    """
    return _plain(_adapter(type(values), "config").dump_python(values, mode="json"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def replace(config: Any, hparams: Mapping[str, Any]) -> Any:
    """Replaces some numbers of a frozen dataclass: the first thing that an experiment's ``train`` does.

    A field that holds a text keeps it. Where a config has a ``[sweep]`` axis of such labels, ``config`` has the run's
    own label, and ``hparams`` has the label's position among all of them.

    Args:
        config: the experiment's dataclass.
        hparams: field name, dotted where nested -> value, traced or not, as :func:`mixjax.sweep` hands them to
            ``train``.

    Returns:
        An instance of the same dataclass.

    Raises:
        TypeError: no such field.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Rule:
        ...     gamma: float = 0.1
        >>> @dataclasses.dataclass(frozen=True)
        ... class Toy:
        ...     steps: int = 10
        ...     rule: Rule = Rule()
        >>> replace(Toy(), {"rule.gamma": 0.5, "steps": 20})
        Toy(steps=20, rule=Rule(gamma=0.5))
    """
    for name, value in hparams.items():
        first, _, rest = name.partition(".")
        if rest:
            value = replace(getattr(config, first), {rest: value})
        is_position = isinstance(getattr(config, first, None), str) and not isinstance(value, str)
        config = config if is_position else dataclasses.replace(config, **{first: value})
    return config
