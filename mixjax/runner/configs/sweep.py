"""Reads the table ``[sweep]`` of a config: seeds, axes and points."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from mixjax.checks import requires
from mixjax.runner.configs.fields import (
    ConfigError,
    check_keys,
    dotted_fields,
    field_hints,
    field_type,
    is_dataclass,
    is_label,
    is_number,
    is_vector,
    meant,
    validate,
)
from mixjax.sweeps import random_points

with requires("experiments", "mixjax.runner.configs"):
    import pydantic

__all__ = ["POINTS", "SWEEP_KEYS", "Draws", "Sweep", "check_swept", "choices_of", "sweep_of"]

SWEEP_KEYS = ("seeds", "first_seed", "paired", "chunk", "vectorize")
"""The keys of [sweep] that are settings of the sweep, not fields of the experiment."""

POINTS = ("points", "random")
"""The keys of [sweep] that hold tables of fields."""

_Value = int | float | str | tuple[int | float, ...]
_Columns = dict[str, Annotated[tuple[_Value, ...], pydantic.Field(min_length=1)]]
_Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
# Bounded, since the values are written out one by one: a typing error must not fill the memory.
_Num = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
# Lists of the runs are kept in memory. No sweep of so many would end.
_MAX_RUNS = 100_000_000


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Holds what each ``[[run]]`` is repeated over: seeds, times the product of the axes, times the points.

    Args:
        seeds: number of seeds of each point, at least 1.
        first_seed: the first of these seeds, at least 0; the last one is below 2³².
        paired: whether all points have the same seeds, see :func:`mixjax.sweep`.
        chunk: number of runs in one call of the compiled program, at least 1, or "auto".
        vectorize: "vmap", "map", "auto" or a number of runs, see :func:`mixjax.sweep`; None takes its default for the
            devices at hand.
        axes: field name, dotted where nested -> its values, at least one: numbers, texts or vectors of numbers.
        points: field name, dotted where nested -> column of such values; all columns have one length.
    """

    seeds: Annotated[int, pydantic.Field(ge=1)] = 1
    first_seed: Annotated[int, pydantic.Field(ge=0)] = 0
    paired: bool = True
    chunk: Annotated[int, pydantic.Field(ge=1, le=_MAX_RUNS)] | Literal["auto"] = "auto"
    vectorize: _Num | Literal["vmap", "map", "auto"] | None = None
    axes: _Columns = dataclasses.field(default_factory=dict)
    points: _Columns = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Checks that columns have one length, and that no field is an axis and a column."""
        lengths = {name: len(values) for name, values in self.points.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of points need one length, got {lengths}")
        both = set(self.axes) & set(self.points)
        if both:
            raise ValueError(f"{min(both)} is an axis and a column of points; keep one of the two")
        num_seeds = self.seeds if self.paired else self.num_runs
        if self.first_seed + num_seeds > 2**32:
            raise ValueError(f"seeds must be below 2**32, got {num_seeds} from first_seed {self.first_seed} on")
        if self.num_runs > _MAX_RUNS:
            raise ValueError(f"there must be at most {_MAX_RUNS:,} runs, got {self.num_runs:,}")

    @property
    def num_runs(self) -> int:
        """Counts the runs of each ``[[run]]``: the points of axes and columns together, times the seeds."""
        num_points = len(next(iter(self.points.values()), (None,)))
        return self.seeds * num_points * math.prod(map(len, self.axes.values()))


@dataclasses.dataclass(frozen=True)
class _Spaced:
    """Holds an axis of ``num`` evenly spaced values."""

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
    """Holds the range that a random value is drawn from."""

    start: _Finite
    stop: _Finite
    scale: Literal["linear", "log", "integer"] = "linear"


@dataclasses.dataclass(frozen=True)
class Draws:
    """Holds how many random points there are, and the seed of their draws.

    Args:
        num: number of points, at least 1.
        seed: of the draws, at least 0. The same seed draws the same points.
    """

    num: _Num
    seed: Annotated[int, pydantic.Field(ge=0)] = 0


def sweep_of(table: Mapping[str, Any], cls: type, path: str) -> Sweep:
    """Reads the table ``[sweep]``.

    Args:
        table: its values by key, checked by :func:`check_swept`.
        cls: the experiment's dataclass.
        path: the config file, for messages.

    Returns:
        The sweep, its axes and points written out.

    Raises:
        ConfigError: a mistake in a value.
    """
    own = {key: value for key, value in table.items() if key in SWEEP_KEYS}
    rest = {key: value for key, value in table.items() if key not in (*SWEEP_KEYS, *POINTS)}
    axes = {name: _axis(value, f"{path}: [sweep] {name}") for name, value in dotted_fields(rest, cls).items()}
    if "points" in table and "random" in table:
        raise ConfigError(f"{path}: [sweep.points] and [sweep.random]: keep one of the two")
    points = dotted_fields(table.get("points", {}), cls)
    for name, values in points.items():
        if not isinstance(values, list):
            raise ConfigError(f"{path}: [sweep.points] {name}: a column is a list, got {values!r}")
    if "random" in table:
        for name, values in choices_of(table, cls).items():
            _check_vectors(values, cls, name, path)
        points = _random(table["random"], cls, f"{path}: [sweep.random]")
    for name, values in (axes | points).items():
        _check_vectors(values, cls, name, path)
    return validate(Sweep, {**own, "axes": axes, "points": points}, f"{path}: [sweep]")


def _check_vectors(values: Sequence[Any], cls: type, name: str, path: str) -> None:
    if is_vector(field_type(cls, name)) and not all(isinstance(value, list) for value in values):
        raise ConfigError(f"{path}: [sweep] {name}: takes a list of vectors, [[0.5, 0.5], [0.9, 0.1]], got {values}")


def choices_of(table: Mapping[str, Any], cls: type) -> dict[str, list]:
    """Returns the lists that ``[sweep.random]`` chooses from, of which a draw may leave values out.

    Args:
        table: the table ``[sweep]``, checked by :func:`check_swept`.
        cls: the experiment's dataclass.

    Returns:
        Field name, dotted where nested -> list.
    """
    names = [f.name for f in dataclasses.fields(Draws)]
    fields = {key: value for key, value in table.get("random", {}).items() if key not in names}
    return {name: value for name, value in dotted_fields(fields, cls).items() if isinstance(value, list)}


def check_swept(table: Mapping[str, Any], cls: type, where: str, extra: Sequence[str]) -> None:
    """Checks that keys are fields of numbers, vectors or texts, or tables of a nested dataclass with such fields.

    Args:
        table: values by key.
        cls: the dataclass.
        where: where the table stands, for messages.
        extra: other keys that are allowed.

    Raises:
        ConfigError: an unknown key, or a field that cannot be an axis.
    """
    hints = field_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    can_vary = {name for name, hint in fields.items() if is_number(hint) or is_vector(hint) or is_label(hint)}
    possible = [name for name, hint in fields.items() if name in can_vary or is_dataclass(hint)]
    for key, value in table.items():
        if key in extra or key in can_vary:
            continue
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; {meant(key, (cls,), [*extra, *possible])}")
        if not (is_dataclass(fields[key]) and isinstance(value, dict)):
            kind = getattr(fields[key], "__name__", fields[key])
            raise ConfigError(
                f"{where} {key}: only a field that holds a number, a vector of numbers or a text can be an axis, {key} "
                f"is {kind}; use [[run]] tables"
            )
        check_swept(value, fields[key], f"{where} {key}", ())


def _random(table: Mapping[str, Any], cls: type, where: str) -> dict[str, list]:
    """Draws the points of ``[sweep.random]``."""
    names = [f.name for f in dataclasses.fields(Draws)]
    draws = validate(Draws, {key: value for key, value in table.items() if key in names}, where)
    space = {}
    for name, value in dotted_fields({k: v for k, v in table.items() if k not in names}, cls).items():
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


def _axis(value: Any, where: str) -> list:
    """Writes out the values of an axis."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: an axis is a list or {{start, stop, num, scale}}, got {value!r}")
    check_keys(value, (_Spaced,), where)
    spaced = validate(_Spaced, value, where)
    space = np.geomspace if spaced.scale == "log" else np.linspace
    values = space(spaced.start, spaced.stop, spaced.num)
    # If all values are whole, up to rounding, they become integers: a field of integers would refuse 2.0.
    whole = np.isclose(values, np.round(values), rtol=1e-12, atol=0).all()
    return [int(v) for v in np.round(values)] if whole else values.tolist()
