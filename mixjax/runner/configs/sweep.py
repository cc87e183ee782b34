"""The table `[sweep]`: seeds, axes and points."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from mixjax.runner.configs.fields import ConfigError, check_keys, flat, is_dataclass, is_number, nearest, validate
from mixjax.sweeps.runs import random_points

SWEEP_KEYS = ("seeds", "first_seed", "chunk", "vectorize")
POINTS = ("points", "random")  # keys of [sweep] that hold tables of fields

_Columns = dict[str, Annotated[tuple[int | float, ...], pydantic.Field(min_length=1)]]
_Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
_Num = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]  # values that are written out one by one


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What each run is repeated over: `seeds` times the product of the `axes`.

    Args:
        seeds: number of paired seeds, at least 1.
        first_seed: the first one, at least 0.
        chunk: runs a call of the compiled program, at least 1, or "auto".
        vectorize: "vmap" or "map", see :func:`mixjax.sweep`; None takes the default of the devices at hand.
        axes: field name, dotted where nested -> its values, at least one.
        points: field name -> column; all columns have one length.
    """

    seeds: Annotated[int, pydantic.Field(ge=1)] = 1
    first_seed: Annotated[int, pydantic.Field(ge=0)] = 0
    chunk: Annotated[int, pydantic.Field(ge=1)] | Literal["auto"] = "auto"
    vectorize: Literal["vmap", "map"] | None = None
    axes: _Columns = dataclasses.field(default_factory=dict)
    points: _Columns = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Checks the points."""
        lengths = {name: len(values) for name, values in self.points.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of points need one length, got {lengths}")
        both = set(self.axes) & set(self.points)
        if both:
            raise ValueError(f"{min(both)} is an axis and a column of points; keep one of the two")


@dataclasses.dataclass(frozen=True)
class _Spaced:
    """An axis of `num` evenly spaced values."""

    start: _Finite
    stop: _Finite
    num: _Num
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self):
        if not math.isfinite(self.stop - self.start):
            raise ValueError(f"start and stop are too far apart, got {self.start} and {self.stop}")
        if self.scale == "log" and not (self.start > 0 and self.stop > 0):
            raise ValueError(f"a log scale needs start and stop above 0, got {self.start} and {self.stop}")


@dataclasses.dataclass(frozen=True)
class _Range:
    """What a random value is drawn from."""

    start: _Finite
    stop: _Finite
    scale: Literal["linear", "log", "integer"] = "linear"


@dataclasses.dataclass(frozen=True)
class Draws:
    """How many random points, and the seed of their draws."""

    num: _Num
    seed: Annotated[int, pydantic.Field(ge=0)] = 0


def sweep_of(table: Mapping[str, Any], cls: type, path: str) -> Sweep:
    """The table `[sweep]` of an experiment with this dataclass."""
    own = {key: value for key, value in table.items() if key in SWEEP_KEYS}
    rest = {key: value for key, value in table.items() if key not in (*SWEEP_KEYS, *POINTS)}
    axes = {name: _axis(value, f"{path}: [sweep] {name}") for name, value in flat(rest, cls).items()}
    if all(key in table for key in POINTS):
        raise ConfigError(f"{path}: [sweep.points] and [sweep.random]: keep one of the two")
    points = dict(flat(table.get("points", {}), cls))
    for name, values in points.items():
        if not isinstance(values, list):
            raise ConfigError(f"{path}: [sweep.points] {name}: a column is a list, got {values!r}")
    if "random" in table:
        points = _random(table["random"], cls, f"{path}: [sweep.random]")
    return validate(Sweep, {**own, "axes": axes, "points": points}, f"{path}: [sweep]")


def check_swept(table: Mapping[str, Any], cls: type, where: str, extra: Sequence[str]) -> None:
    """Keys must be fields of one number, or tables of a nested dataclass with such fields."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    possible = [name for name, hint in fields.items() if is_number(hint) or is_dataclass(hint)]
    for key, value in table.items():
        if key in extra or (key in fields and is_number(fields[key])):
            continue
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(key, [*extra, *possible])}")
        if not (is_dataclass(fields[key]) and isinstance(value, dict)):
            kind = getattr(fields[key], "__name__", fields[key])
            raise ConfigError(
                f"{where} {key}: only a field that holds one number can be an axis, {key} is {kind}; use [[run]] tables"
            )
        check_swept(value, fields[key], f"{where} {key}", ())


def _random(table: Mapping[str, Any], cls: type, where: str) -> dict[str, list]:
    names = [f.name for f in dataclasses.fields(Draws)]
    draws = validate(Draws, {key: value for key, value in table.items() if key in names}, where)
    space = {}
    for name, value in flat({k: v for k, v in table.items() if k not in names}, cls).items():
        if isinstance(value, dict):
            check_keys(value, (_Range,), f"{where} {name}")
            value = validate(_Range, value, f"{where} {name}")
            value = (value.scale, value.start, value.stop)
        elif not isinstance(value, list):
            raise ConfigError(f"{where} {name}: must be {{start, stop, scale}} or a list to choose from, got {value!r}")
        space[name] = value
    try:
        return random_points(space, draws.num, draws.seed)
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _axis(value: Any, where: str) -> list[int | float]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: an axis is a list or {{start, stop, num, scale}}, got {value!r}")
    check_keys(value, (_Spaced,), where)
    spaced = validate(_Spaced, value, where)
    values = (np.geomspace if spaced.scale == "log" else np.linspace)(spaced.start, spaced.stop, spaced.num)
    whole = np.isclose(values, np.round(values), rtol=1e-12, atol=0).all()  # for fields of integers
    return [int(v) for v in np.round(values)] if whole else values.tolist()
