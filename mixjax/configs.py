"""Config files: TOML in, validated frozen dataclasses out.

A config names an experiment, gives values for the fields of its frozen dataclass, and says what to repeat:

```toml
# One line that `mixjax list` shows.
experiment = "experiments.linear:linear"  # module:function, a function(config: SomeFrozenDataclass) -> Experiment
steps = 2000                              # base values: fields of that dataclass; nested dataclasses are tables

[[run]]                                   # optional: what changes shapes or structure; each run is compiled once
name = "(100, 1)"
scales = [100.0, 1.0]                     # replaces the base value in this run

[sweep]
seeds = 100                               # paired seeds first_seed, first_seed + 1, ...
first_seed = 1000                         # default 0
chunk = 4                                 # runs a call of the compiled program; default "auto", the sweep chooses
gamma1 = [0.01, 0.1]                      # any other key: an axis over a numeric field of the dataclass
beta = {start = 0.1, stop = 10.0, num = 5, scale = "log"}
rule.decay = [0.9, 0.99]                  # of a nested dataclass

[sweep.points]                            # optional: points one by one, columns of one length
learning_rate = [0.1, 0.01]
momentum = [0.9, 0.99]
```

`[sweep.random]` draws points instead: `num`, `seed`, and for each field `{start, stop, scale}`, with a scale "linear",
"log" or "integer", or a list to choose from.

The module is looked for in the config's project root (the nearest folder above it with a `pyproject.toml`, else its own
folder), then in the current folder, then among the installed packages.
"""

import dataclasses
import difflib
import importlib.machinery
import json
import math
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

try:
    import pydantic
    import tomli_w
except ImportError as exc:
    raise ImportError(f"mixjax.configs needs {exc.name}: pip install 'mixjax[experiments]'") from exc

from mixjax.runs import random_points

__all__ = ["DEFAULT_RUN", "Config", "ConfigError", "Run", "Sweep", "as_json", "load", "replace"]

DEFAULT_RUN = "run"  # the name of the only run of a config without [[run]] tables
_RESERVED = ("experiment", "run", "sweep")  # top-level keys that are not fields of the experiment's dataclass


class ConfigError(ValueError):
    """A mistake in a config file or in a `--set`; the message names the key and where it stands."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One compiled run.

    Args:
        name: the label of the run, a key of the results.
        values: the experiment's own frozen dataclass, complete.
    """

    name: str
    values: Any


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
        axes: field name, dotted where nested -> its values, at least one.
        points: field name -> column; all columns have one length.
    """

    seeds: Annotated[int, pydantic.Field(ge=1)] = 1
    first_seed: Annotated[int, pydantic.Field(ge=0)] = 0
    chunk: Annotated[int, pydantic.Field(ge=1)] | Literal["auto"] = "auto"
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
class _Draws:
    """How many random points, and the seed of their draws."""

    num: _Num
    seed: Annotated[int, pydantic.Field(ge=0)] = 0


_SWEEP_KEYS = ("seeds", "first_seed", "chunk")
_POINTS = ("points", "random")  # keys of [sweep] that hold tables of fields


@dataclasses.dataclass(frozen=True)
class Config:
    """A loaded config: `function(run.values)` gives the Experiment of each run.

    Args:
        name: the file's stem (for a `config.toml` its folder's name); names the result.
        experiment: "module:function", as written.
        function: that function.
        runs: at least one.
        sweep: seeds and axes.
        path: the file.
        overrides: the `--set` arguments it was loaded with.
    """

    name: str
    experiment: str
    function: Callable
    runs: tuple[Run, ...]
    sweep: Sweep
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def base(self) -> dict[str, Any]:
        """Values that all runs share, defaults included, as plain TOML types."""
        return self._split()[0]

    def to_toml(self) -> str:
        """The fully resolved config as TOML: loading it gives the same runs and the same sweep."""
        base, rest = self._split()
        table: dict[str, Any] = {"experiment": self.experiment, **base}
        if [run.name for run in self.runs] != [DEFAULT_RUN]:
            table["run"] = [{"name": run.name, **own} for run, own in zip(self.runs, rest, strict=True)]
        sweep = {key: getattr(self.sweep, key) for key in _SWEEP_KEYS}
        for name, values in self.sweep.axes.items():
            sweep = _merge(sweep, _nest(name.split("."), list(values)))
        for name, values in self.sweep.points.items():
            sweep = _merge(sweep, _nest(["points", *name.split(".")], list(values)))
        return tomli_w.dumps(table | {"sweep": sweep})

    def _split(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        dumps = [as_json(run.values) for run in self.runs]
        base = _shared(dumps)
        return base, [_own(dump, base) for dump in dumps]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and validates a config file, and imports the experiment it names.

    Args:
        path: a TOML file.
        overrides: "key=value" strings, as `mixjax run --set` takes them: dotted keys (`sweep.seeds=100`,
          `run.0.steps=5`), TOML values; what is not TOML is a string.

    Returns:
        The Config, with every value checked against the type of its field.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: anything wrong inside it; an unknown key is named with the nearest known one.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "doctest_toy.py").write_text('''
        ... import dataclasses
        ... @dataclasses.dataclass(frozen=True)
        ... class Toy:
        ...     steps: int = 10
        ...     gamma: float = 0.1
        ... def toy(config: Toy): ...
        ... ''')
        >>> _ = (folder / "toy.toml").write_text('experiment = "doctest_toy:toy"\\nsweep.seeds = 3')
        >>> load(folder / "toy.toml", ["steps=20"]).base
        {'steps': 20, 'gamma': 0.1}
        >>> load(folder / "toy.toml", ["stesp=20"])
        Traceback (most recent call last):
        mixjax.configs.ConfigError: --set stesp=20: unknown key 'stesp'; did you mean 'steps'?
    """
    path = Path(path)
    raw = _read(path)
    documents = [(str(path), raw)]
    parsed = [(f"--set {text}", *_parse(text)) for text in overrides]
    documents += [(where, _nest(keys, value)) for where, keys, value in parsed]
    experiment = next((d["experiment"] for _, d in reversed(documents) if "experiment" in d), None)
    function, cls = _resolve(experiment, path)
    for where, document in documents:
        _check_document(document, cls, where)
    for where, keys, value in parsed:
        _check_takes_effect(raw, keys, where)
        _assign(raw, keys, value, where)

    base = {key: value for key, value in raw.items() if key not in _RESERVED}
    sweep = _sweep(raw.get("sweep", {}), cls, str(path))
    swept = sweep.axes | sweep.points
    for name, values in swept.items():
        base = _merge(_nest(name.split("."), values[0]), base)
    runs = []
    for table in raw.get("run", [{"name": DEFAULT_RUN}]):
        name = table.get("name")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{path}: every [[run]] needs a name, a non-empty string; got {name!r}")
        if any(name == run.name for run in runs):
            raise ConfigError(f"{path}: two [[run]] tables are named {name!r}; names must differ")
        own = {key: value for key, value in table.items() if key != "name"}
        for key in swept:
            if _at(own, key.split(".")) is not None:
                raise ConfigError(f"{path}: [[run]] {name!r} sets {key!r}, which [sweep] replaces; keep one of the two")
        runs.append(
            Run(name, _validate(cls, _merge(base, own), f"{path}: [[run]] {name!r}" if "run" in raw else str(path)))
        )
    if not runs:
        raise ConfigError(f"{path}: run is empty; leave it out, or give at least one [[run]] table")
    for name, values in swept.items():  # each value must be one that the field takes; 1 in a float field is 1.0
        keys, where = name.split("."), f"{path}: [sweep] {name}"
        trials = [_merge(as_json(runs[0].values), _nest(keys, value)) for value in values]
        swept[name] = tuple(_at(as_json(_validate(cls, trial, where)), keys) for trial in trials)
    sweep = dataclasses.replace(
        sweep, axes={name: swept[name] for name in sweep.axes}, points={name: swept[name] for name in sweep.points}
    )
    name = path.resolve().parent.name if path.name == "config.toml" else path.stem
    return Config(name, experiment, function, tuple(runs), sweep, path, tuple(overrides))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config file; `mixjax list` shows those under ./configs")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:  # no TOML, no UTF-8, or an integer or a nesting beyond Python's limits
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc


def _parse(text: str) -> tuple[list[str], Any]:
    """Splits one `--set key=value` into its keys and its value."""
    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: write key=value, for example --set sweep.seeds=100")
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return keys, value.strip()


def _nest(keys: Sequence[str], value: Any) -> Any:
    """The smallest document that holds `value` at `keys`; a number is a place in a list."""
    for key in reversed(keys):
        value = [value] if key.isdecimal() else {key: value}
    return value if isinstance(value, dict) else {}


def _assign(table: Any, keys: Sequence[str], value: Any, where: str) -> None:
    try:
        for key in keys[:-1]:
            table = table[int(key)] if isinstance(table, list) else table.setdefault(key, {})
        table[int(keys[-1]) if isinstance(table, list) else keys[-1]] = value
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise ConfigError(f"{where}: the config has no such place") from exc


def _check_takes_effect(raw: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """A base value that a run or an axis replaces anyway is a mistake."""
    sweep = raw.get("sweep", {})
    for table, place in ((sweep, "sweep"), *((sweep.get(key, {}), f"sweep.{key}") for key in _POINTS)):
        if keys[0] not in _RESERVED and _at(table, keys) is not None and keys[0] not in (*_SWEEP_KEYS, *_POINTS):
            name = ".".join(keys)
            raise ConfigError(f"{where}: has no effect, [sweep] replaces {name!r}; use --set {place}.{name}=[...]")
    for place, table in enumerate(raw.get("run", [])):
        name, table = table.get("name"), _at(table, keys)
        if table is not None and keys[0] != "name":
            instead = ".".join(["run", str(place), *keys])
            raise ConfigError(f"{where}: has no effect on [[run]] {name!r}, which sets its own; use --set {instead}=")


def _at(table: Any, keys: Sequence[str]) -> Any:
    """What stands at dotted keys, or None."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _resolve(experiment: Any, path: Path) -> tuple[Callable, type]:
    """Imports "module:function"; returns the function and the dataclass its first parameter is annotated with."""
    if experiment is None:
        raise ConfigError(f'{path}: no experiment; write experiment = "module:function" at the top')
    where = f"{path}: experiment = {experiment!r}"
    module_name, _, name = experiment.partition(":") if isinstance(experiment, str) else ("", "", "")
    if not all(module_name.split(".")) or not name:
        raise ConfigError(f'{where}: must be a string "module:function"')
    folders = [next((p for p in path.resolve().parents if (p / "pyproject.toml").is_file()), path.resolve().parent)]
    folders += [Path.cwd()] if Path.cwd() != folders[0] else []
    sys.path[:] = [*map(str, folders), *(p for p in sys.path if p not in map(str, folders))]
    importlib.invalidate_caches()
    top = module_name.partition(".")[0]
    spec, loaded = importlib.machinery.PathFinder.find_spec(top, [str(p) for p in folders]), sys.modules.get(top)
    if spec and loaded and loaded.__spec__ and spec.origin != loaded.__spec__.origin:
        raise ConfigError(f"{where}: this process has already imported another {top!r}, {loaded.__spec__.origin}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # something that the module itself imports
        looked = " and ".join(map(str, folders))
        raise ConfigError(f"{where}: no module {exc.name!r} in {looked}, nor among the installed packages") from exc
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if isinstance(v, types.FunctionType) and n[0] != "_"]
        raise ConfigError(f"{where}: {module_name} has no function {name!r}; {_nearest(name, functions)}")
    try:
        annotations = [v for k, v in typing.get_type_hints(function).items() if k != "return"]
    except NameError as exc:
        raise ConfigError(f"{where}: cannot read the annotations of {name}: {exc}") from exc
    cls = annotations[0] if annotations else None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):
        raise ConfigError(f"{where}: {name} must take one argument annotated with a frozen dataclass, got {cls}")
    clash = {f.name for f in dataclasses.fields(cls)} & {*_RESERVED, "name"}
    if clash:
        raise ConfigError(f"{where}: {cls.__name__} has a field {clash.pop()!r}, a name that configs reserve")
    return function, cls


def _check_document(document: Mapping[str, Any], cls: type, where: str) -> None:
    """Every key of a config (or of the part that one `--set` gives) must be known."""
    base = {key: value for key, value in document.items() if key not in _RESERVED}
    _check_keys(base, (cls,), where, extra=_RESERVED)
    runs, sweep = document.get("run", []), document.get("sweep", {})
    if not isinstance(runs, list) or not all(isinstance(table, dict) for table in runs):
        raise ConfigError(f"{where}: run must be a list of tables; write [[run]], not [run]")
    for table in runs:
        label = f"{where}: [[run]] {table['name']!r}" if "name" in table else f"{where}: [[run]]"
        _check_keys({k: v for k, v in table.items() if k != "name"}, (cls,), label, extra=("name",))
    if not isinstance(sweep, dict):
        raise ConfigError(f"{where}: sweep must be a table; write [sweep]")
    _check_swept({k: v for k, v in sweep.items() if k not in _POINTS}, cls, f"{where}: [sweep]", _SWEEP_KEYS + _POINTS)
    for key in _POINTS:
        points = sweep.get(key, {})
        if not isinstance(points, dict):
            raise ConfigError(f"{where}: [sweep] {key} must be a table; write [sweep.{key}]")
        extra = tuple(f.name for f in dataclasses.fields(_Draws)) if key == "random" else ()
        _check_swept(points, cls, f"{where}: [sweep.{key}]", extra)


def _check_swept(table: Mapping[str, Any], cls: type, where: str, extra: Sequence[str]) -> None:
    """Keys must be fields of one number, or tables of a nested dataclass with such fields."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    possible = [name for name, hint in fields.items() if _is_number(hint) or _is_dataclass(hint)]
    for key, value in table.items():
        if key in extra or (key in fields and _is_number(fields[key])):
            continue
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; {_nearest(key, [*extra, *possible])}")
        if not (_is_dataclass(fields[key]) and isinstance(value, dict)):
            kind = getattr(fields[key], "__name__", fields[key])
            raise ConfigError(
                f"{where} {key}: only a field that holds one number can be an axis, {key} is {kind}; use [[run]] tables"
            )
        _check_swept(value, fields[key], f"{where} {key}", ())


def _check_keys(table: Mapping[str, Any], classes: Sequence[type], where: str, extra: Sequence[str] = ()) -> None:
    hints = {f.name: typing.get_type_hints(cls)[f.name] for cls in classes for f in dataclasses.fields(cls) if f.init}
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {key!r}; {_nearest(key, [*extra, *hints])}")
        inner = list(_dataclasses_in(hints[key]))
        for item in value if isinstance(value, list) else [value]:
            if inner and isinstance(item, dict):
                _check_keys(item, inner, f"{where}: {key}")


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if _is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


def _is_number(hint: Any) -> bool:
    return set(typing.get_args(hint) or (hint,)) - {type(None)} <= {int, float}


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def _sweep(table: Mapping[str, Any], cls: type, path: str) -> Sweep:
    own = {key: value for key, value in table.items() if key in _SWEEP_KEYS}
    rest = {key: value for key, value in table.items() if key not in (*_SWEEP_KEYS, *_POINTS)}
    axes = {name: _axis(value, f"{path}: [sweep] {name}") for name, value in _fields(rest, cls).items()}
    if all(key in table for key in _POINTS):
        raise ConfigError(f"{path}: [sweep.points] and [sweep.random]: keep one of the two")
    points = dict(_fields(table.get("points", {}), cls))
    for name, values in points.items():
        if not isinstance(values, list):
            raise ConfigError(f"{path}: [sweep.points] {name}: a column is a list, got {values!r}")
    if "random" in table:
        points = _random(table["random"], cls, f"{path}: [sweep.random]")
    return _validate(Sweep, {**own, "axes": axes, "points": points}, f"{path}: [sweep]")


def _random(table: Mapping[str, Any], cls: type, where: str) -> dict[str, list]:
    names = [f.name for f in dataclasses.fields(_Draws)]
    draws = _validate(_Draws, {key: value for key, value in table.items() if key in names}, where)
    space = {}
    for name, value in _fields({k: v for k, v in table.items() if k not in names}, cls).items():
        if isinstance(value, dict):
            _check_keys(value, (_Range,), f"{where} {name}")
            value = _validate(_Range, value, f"{where} {name}")
            value = (value.scale, value.start, value.stop)
        elif not isinstance(value, list):
            raise ConfigError(f"{where} {name}: must be {{start, stop, scale}} or a list to choose from, got {value!r}")
        space[name] = value
    try:
        return random_points(space, draws.num, draws.seed)
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _fields(table: Mapping[str, Any], cls: type, prefix: str = "") -> dict[str, Any]:
    """A table of fields, those of nested dataclasses by dotted names."""
    hints, flat = typing.get_type_hints(cls), {}
    for key, value in table.items():
        if _is_dataclass(hints[key]):
            flat |= _fields(value, hints[key], f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _axis(value: Any, where: str) -> list[int | float]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: an axis is a list or {{start, stop, num, scale}}, got {value!r}")
    _check_keys(value, (_Spaced,), where)
    spaced = _validate(_Spaced, value, where)
    values = (np.geomspace if spaced.scale == "log" else np.linspace)(spaced.start, spaced.stop, spaced.num)
    whole = np.isclose(values, np.round(values), rtol=1e-12, atol=0).all()  # for fields of integers
    return [int(v) for v in np.round(values)] if whole else values.tolist()


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


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _shared(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all tables hold, in the tables inside them too."""
    shared = {}
    for key in (key for key in tables[0] if all(key in table for table in tables)):
        values = [table[key] for table in tables]
        if len({repr(value) for value in values}) == 1:  # a NaN is not equal to itself
            shared[key] = values[0]
        elif all(isinstance(value, dict) for value in values) and (inner := _shared(values)):
            shared[key] = inner
    return shared


def _own(table: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a table holds besides; merging it into what is shared gives the table."""
    own = {key: value for key, value in table.items() if key not in shared}
    for key, value in shared.items():
        if isinstance(value, dict) and (inner := _own(table[key], value)):
            own[key] = inner
    return own


def _adapter(cls: type, where: str) -> pydantic.TypeAdapter:
    try:
        return pydantic.TypeAdapter(cls)
    except pydantic.PydanticSchemaGenerationError as exc:
        raise ConfigError(
            f"{where}: {cls.__name__} has a field that TOML cannot give: {exc.message.splitlines()[0]}"
        ) from exc


def _validate(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """Builds the dataclass; strict (no "3" for 3), except that TOML's lists make tuples and integers make floats."""
    try:
        return _adapter(cls, where).validate_json(json.dumps(table, default=str), strict=True)
    except pydantic.ValidationError as exc:
        lines = []
        for error in exc.errors():
            got = "" if error["type"] == "missing" or not error["loc"] else f", got {error['input']!r}"
            lines.append(": ".join(filter(None, [".".join(map(str, error["loc"])), error["msg"]])) + got)
        raise ConfigError(f"{where}: " + "; ".join(lines)) from exc


def as_json(values: Any) -> dict[str, Any]:
    """A dataclass as plain TOML types; None, which TOML lacks, is left out (it can only be a default)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items() if v is not None}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(_adapter(type(values), "config").dump_python(values, mode="json"))
