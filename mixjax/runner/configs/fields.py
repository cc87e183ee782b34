"""The frozen dataclass of an experiment: its fields by name and type, checked with pydantic."""

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic

_ALTERNATIVE = r"constrained-|literal\[|(int|float|str|bool|tuple|list|dict)(\[|$)"
"""Of a place that pydantic names: which alternative of a field's type it means."""


class ConfigError(ValueError):
    """A mistake in a config file or in a `--set`; the message names the key and where it stands."""


def check_keys(table: Mapping[str, Any], classes: Sequence[type], where: str, extra: Sequence[str] = ()) -> None:
    """Keys must be fields of one of the dataclasses, inside nested ones too, or `extra`."""
    hints = {f.name: typing.get_type_hints(cls)[f.name] for cls in classes for f in dataclasses.fields(cls) if f.init}
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(key, [*extra, *hints])}")
        inner = list(_dataclasses_in(hints[key]))
        for item in value if isinstance(value, list) else [value]:
            if inner and isinstance(item, dict):
                check_keys(item, inner, f"{where}: {key}")


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


def is_number(hint: Any) -> bool:
    """Whether a field of this type holds one number."""
    return set(typing.get_args(hint) or (hint,)) - {type(None)} <= {int, float}


def is_dataclass(hint: Any) -> bool:
    """Whether a field of this type holds a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def nearest(key: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown key."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def flat(table: Mapping[str, Any], cls: type, prefix: str = "") -> dict[str, Any]:
    """A table of fields, those of nested dataclasses by dotted names."""
    hints, found = typing.get_type_hints(cls), {}
    for key, value in table.items():
        if is_dataclass(hints[key]):
            found |= flat(value, hints[key], f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _adapter(cls: type, where: str) -> pydantic.TypeAdapter:
    try:
        return pydantic.TypeAdapter(cls)
    except pydantic.PydanticSchemaGenerationError as exc:
        raise ConfigError(
            f"{where}: {cls.__name__} has a field that TOML cannot give: {exc.message.splitlines()[0]}"
        ) from exc


def validate(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """Builds the dataclass; strict (no "3" for 3), except that TOML's lists make tuples and integers make floats."""
    try:
        return _adapter(cls, where).validate_json(json.dumps(table, default=str), strict=True)
    except pydantic.ValidationError as exc:
        lines = []
        for error in exc.errors():
            got = "" if error["type"] == "missing" or not error["loc"] else f", got {error['input']!r}"
            place = [str(part) for part in error["loc"]]
            place = [part for i, part in enumerate(place) if not (i and re.match(_ALTERNATIVE, part))]
            lines.append(": ".join(filter(None, [".".join(place), error["msg"]])) + got)
        raise ConfigError(f"{where}: " + "; ".join(lines)) from exc


def as_json(values: Any) -> dict[str, Any]:
    """A dataclass as plain TOML types; None, which TOML lacks, is left out (it can only be a default)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items() if v is not None}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(_adapter(type(values), "config").dump_python(values, mode="json"))


def replace(config: Any, hparams: Mapping[str, Any]) -> Any:
    """A frozen dataclass with some numbers replaced; the first thing that an experiment's `train` does.

    Args:
        config: the experiment's dataclass.
        hparams: field name, dotted where nested -> value, traced or not, as `mixjax.sweep` hands them to `train`.

    Returns:
        The same dataclass.

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
        value = replace(getattr(config, first), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{first: value})
    return config
